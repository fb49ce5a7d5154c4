package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/advice"
)

// ConnFlags say where NATS is. Every command that connects has them.
type ConnFlags struct {
	NATS    string `name:"nats" placeholder:"URL" help:"NATS server, or several with commas (default nats://127.0.0.1:4222)." group:"Connection"`
	Context string `placeholder:"NAME" help:"Context of the nats CLI." group:"Connection"`
	Creds   string `placeholder:"FILE" help:"Credentials file." group:"Connection"`
	NKey    string `name:"nkey" placeholder:"FILE" help:"File with an nkey seed." group:"Connection"`
	TLSCA   string `name:"tls-ca" placeholder:"FILE" help:"Certificate authorities to trust." group:"Connection"`
	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"Client certificate." group:"Connection"`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"Private key of the client certificate." group:"Connection"`

	PrefixFlag
}

// PrefixFlag is part of every command that uses subjects.
type PrefixFlag struct {
	Prefix string `placeholder:"P" help:"Start every subject with P. in a shared NATS." group:"Connection"`
}

// Validate checks the prefix. kong calls Validate of every embedded struct whose name is
// exported, which is why these names are.
func (f *PrefixFlag) Validate() error {
	if err := checkID("--prefix", f.Prefix); err != nil {
		return err
	}
	if _, err := hivebeat.NewSubjects(f.Prefix); err != nil {
		return misused(fmt.Errorf("--prefix: %w", err), "use another one, such as acme")
	}
	return nil
}

func (f *PrefixFlag) subjects() hivebeat.Subjects {
	s, _ := hivebeat.NewSubjects(f.Prefix) // Validate checked it
	return s
}

// viewerEvery leaves top and watch without an answer for at most 3 s when their server is
// stopped and another one is available.
const viewerEvery = 2 * time.Second

// connect connects as name, for a command that asks a question. It fails fast.
func (f *ConnFlags) connect(ctx context.Context, name string) (*nats.Conn, error) {
	return f.dial(ctx, bus.Config{Name: name, Every: viewerEvery, FailFast: true})
}

// join connects as name, for an agent, and keeps trying. every is the agent's promise.
func (f *ConnFlags) join(ctx context.Context, name string, every time.Duration, log *slog.Logger) (*nats.Conn, error) {
	return f.dial(ctx, bus.Config{Name: name, Every: every, Logger: log})
}

// dial adds the flags to cfg and connects.
func (f *ConnFlags) dial(ctx context.Context, cfg bus.Config) (*nats.Conn, error) {
	cfg.Name = "hivebeat " + cfg.Name
	cfg.URL, cfg.Context, cfg.Creds, cfg.NKey = f.NATS, f.Context, f.Creds, f.NKey
	cfg.TLSCA, cfg.TLSCert, cfg.TLSKey = f.TLSCA, f.TLSCert, f.TLSKey
	nc, err := bus.Connect(ctx, cfg)
	if bad, ok := errors.AsType[*bus.ConfigError](err); ok {
		hint := advice.For(err)
		if hint == "" {
			hint = "check " + flagOf[bad.Field]
		}
		return nil, misused(fmt.Errorf("%s: %w", flagOf[bad.Field], bad.Err), "%s", hint)
	}
	if _, broken := errors.AsType[net.Error](err); broken && advice.For(err) == "" || errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) {
		return nil, failed(err, "start a server with \"hivebeat up\" or \"nats-server -js\", or name one with --nats URL or --context NAME")
	}
	return nc, err
}

// flagOf names the flag behind a field of bus.Config.
var flagOf = map[string]string{
	"URL": "--nats", "Context": "--context", "Creds": "--creds", "NKey": "--nkey",
	"TLSCA": "--tls-ca", "TLSCert": "--tls-cert", "TLSKey": "--tls-key", "Name": "--id",
}

// AskerFlags are part of every command that sends requests to a queen.
type AskerFlags struct {
	ConnFlags
	Asker string `placeholder:"ID" help:"Send requests as this asker, which NATS permissions can bind to a user; it has its own holds." group:"Connection"`
}

// Validate checks the id.
func (f *AskerFlags) Validate() error {
	return checkID("--asker", f.Asker)
}

// LogFlags are part of every long-running command.
type LogFlags struct {
	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"Lowest level that is logged: ${enum}." group:"Log"`
	LogFormat string `enum:"text,json" default:"text" help:"Log format: ${enum}." group:"Log"`
}

// OutFlag is part of every command that prints data.
type OutFlag struct {
	Output string `short:"o" enum:"${outputs}" default:"text" help:"Output format: ${enum}."`
}

func (f *OutFlag) json() bool { return f.Output == "json" }

// ColorFlag is part of every command that may print colours.
type ColorFlag struct {
	Color string `enum:"auto,always,never" default:"auto" help:"When to colour the output: ${enum}. NO_COLOR is respected."`
}

// AskFlags are part of commands that send requests to a queen and print the answer.
type AskFlags struct {
	AskerFlags
	OutFlag
	ColorFlag
	Timeout time.Duration `default:"5s" help:"How long an answer may take."`
}

// Validate checks the timeout.
func (f *AskFlags) Validate() error {
	if f.Timeout <= 0 {
		return misused(fmt.Errorf("--timeout: %s is not a valid timeout", f.Timeout), "use something like --timeout 5s")
	}
	return nil
}

// LabelFlags are the labels of a worker or hive.
type LabelFlags struct {
	Label map[string]string `placeholder:"K=V" mapsep:"," help:"Label, such as zone=a. May be repeated."`
}

// Validate checks the labels against the limits of the protocol.
func (f *LabelFlags) Validate() error {
	if len(f.Label) > hivebeat.MaxLabels {
		return misused(fmt.Errorf("--label: %d labels", len(f.Label)), "at most %d are allowed", hivebeat.MaxLabels)
	}
	for k, v := range f.Label {
		if k == "" || len(k) > hivebeat.MaxLabelKey || len(v) > hivebeat.MaxLabelVal {
			return misused(fmt.Errorf("--label: %.80q is too long or has no name", k+"="+v),
				"a name has 1 to %d bytes, a value at most %d", hivebeat.MaxLabelKey, hivebeat.MaxLabelVal)
		}
	}
	return nil
}

// checkID checks the id in a flag or argument. An empty one passes: kong reports those that
// are required.
func checkID(flag, id string) error {
	if id == "" {
		return nil
	}
	if err := hivebeat.CheckID(flag, id); err != nil {
		return misused(err, "an id is 1 to %d of A-Z a-z 0-9 _ -", hivebeat.MaxID)
	}
	return nil
}

func checkEvery(d time.Duration) error {
	if d < hivebeat.MinEvery || d > hivebeat.MaxEvery {
		return misused(fmt.Errorf("--every: %s is out of range", d), "use %s to %s", hivebeat.MinEvery, hivebeat.MaxEvery)
	}
	return nil
}

func checkText(flag, s string, most int) error {
	if len(s) > most || strings.ToValidUTF8(s, "") != s {
		return misused(fmt.Errorf("%s: %.40q… is longer than %d bytes or not UTF-8", flag, s, most), "use a shorter text")
	}
	return nil
}

// joined joins words for a hint.
func joined[S ~string](words []S) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return strings.Join(out, ", ")
}

// first returns the first error that is not nil.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
