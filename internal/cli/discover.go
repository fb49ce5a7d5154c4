package cli

import (
	"context"
	"errors"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/discover"
	"github.com/beatfabric/hivebeat/internal/doctor"
)

// DiscoverFlags let a hive find engines.
type DiscoverFlags struct {
	Discover bool `help:"Find the inference engines that run on this machine, by process and listening port, and beat for them: vLLM, SGLang, llama.cpp, Ollama, TensorRT-LLM, TGI. Linux only."`
}

// beside returns the hive with its discovery, which stops first, so that the hive hears the
// goodbyes.
func (f *DiscoverFlags) beside(r role, nc *nats.Conn, cfg discover.Config) (role, error) {
	if !f.Discover {
		return r, nil
	}
	d, err := discover.New(nc, cfg)
	if errors.Is(err, discover.ErrSystem) {
		return nil, misused(err, "leave out --discover, and name the engines in the file of \"hivebeat sidecar\"")
	}
	if err != nil {
		return nil, err
	}
	return &accompanied{role: r, companion: d, first: true, log: cfg.Logger}, nil
}

// found returns what discovery finds now, as findings of the doctor.
func (f *DiscoverFlags) found(ctx context.Context) ([]roleFinding, error) {
	if !f.Discover {
		return nil, nil
	}
	list, err := discover.Look(ctx, discover.Config{Logger: slog.New(slog.DiscardHandler)})
	if ctx.Err() != nil {
		return nil, err
	}
	if err != nil {
		return []roleFinding{{doctor.Hive, doctor.Finding{Level: doctor.Fail, Check: doctor.CheckEngine, What: plain(err.Error()), Do: "leave out --discover"}}}, nil
	}
	var out []roleFinding
	for i := range list {
		g := &list[i]
		finding := doctor.Finding{Level: doctor.OK, Check: doctor.CheckEngine, What: g.Subject() + ": " + g.What, Do: g.Do}
		if g.Trouble || g.Do != "" {
			finding.Level = doctor.Warn
		}
		if !g.Beats && g.Kind == "" {
			finding.What = g.What // only a port
		}
		out = append(out, roleFinding{doctor.Hive, finding})
	}
	if len(list) == 0 {
		out = append(out, roleFinding{doctor.Hive, doctor.Finding{
			Level: doctor.OK, Check: doctor.CheckEngine,
			What: "no process of this machine is an inference engine, as far as it can be seen from here",
		}})
	}
	return out, nil
}
