package wire

import (
	"fmt"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
)

// ParseBeat checks every rule of docs/PROTOCOL.md for a beat and parses b into v, which
// is complete only if the error is nil. The error is a *hivebeat.Refusal. ParseBeat
// keeps no reference to v; v keeps references to b.
func ParseBeat(b []byte, v *BeatView) error {
	if len(b) > hivebeat.MaxBeat {
		return refuse(hivebeat.RefusedSize, "", fmt.Sprintf("%d bytes, at most %d are allowed", len(b), hivebeat.MaxBeat))
	}
	if err := Scan(b); err != nil {
		return err
	}
	c := cursor{b: b}
	*v = BeatView{}
	var version int64
	for range c.pairs("") {
		switch key := c.key(); string(key) {
		case "v":
			version = c.version()
		case "hive":
			v.Hive = c.text("hive", len(b)) // the id's own check names the rule
		case "worker":
			v.Worker = c.text("worker", len(b))
		case "boot":
			v.Boot = c.uint("boot")
		default:
			c.fact(key, &v.FactsView)
		}
	}
	c.ident("hive", v.Hive)
	c.ident("worker", v.Worker)
	c.facts(&v.FactsView)
	return c.done(version)
}

// version reads v. Another version may give every key another meaning, so done reports
// that fault before any other.
func (c *cursor) version() int64 {
	v, ok := c.integer()
	if !ok {
		c.wrong("v", "an integer")
		return 0
	}
	if v == 0 {
		return -1
	}
	return v
}

// done returns the verdict on a whole message.
func (c *cursor) done(version int64) error {
	switch {
	case version == hivebeat.Version:
	case version != 0:
		return refuse(hivebeat.RefusedVersion, "v", "this reader knows version 1")
	default:
		c.fail(hivebeat.RefusedMissing, "v", "")
	}
	return c.err
}

func (c *cursor) ident(key string, id []byte) {
	switch {
	case len(id) == 0:
		c.fail(hivebeat.RefusedMissing, key, "")
	case !hivebeat.ValidID(id):
		c.fail(hivebeat.RefusedID, key, strconv.Quote(clip(id)))
	}
}

// fact reads a key that beats and records share, and skips an unknown one.
func (c *cursor) fact(key []byte, v *FactsView) {
	switch string(key) {
	case "inc":
		v.Inc = c.uint("inc")
	case "every":
		v.Every = c.uint("every")
	case "state":
		v.State = c.text("state", hivebeat.MaxState)
	case "reason":
		v.Reason = c.text("reason", hivebeat.MaxReason)
	case "quiet":
		v.Quiet = c.upto("quiet", hivebeat.MaxQuiet.Milliseconds())
	case "pid":
		v.PID = c.uint("pid")
	case "ns":
		v.NS = c.text("ns", hivebeat.MaxConn)
	case "host":
		v.Host = c.text("host", hivebeat.MaxHostText)
	case "conn":
		v.Conn = c.text("conn", hivebeat.MaxConn)
	case "rw":
		v.RW = c.uint("rw")
	case "model":
		v.Model = c.text("model", hivebeat.MaxModel)
	case "endpoint":
		v.Endpoint = c.text("endpoint", hivebeat.MaxEndpoint)
	case "gpus":
		v.GPUs = c.texts("gpus", hivebeat.MaxGPUs, hivebeat.MaxGPUID)
	case "slots":
		v.Slots = c.uint("slots")
	case "need":
		v.Need = c.uint("need")
	case "labels":
		v.Labels = c.labels()
	case "data":
		v.Data = c.bin("data", hivebeat.MaxData)
	case "engine":
		v.Engine = c.text("engine", hivebeat.MaxEngine)
	case "ver":
		v.Ver = c.text("ver", hivebeat.MaxEngine)
	case "ctx":
		v.Ctx = c.uint("ctx")
	case "kv_cap":
		v.KVCap = c.uint("kv_cap")
	case "lora":
		c.lora(&v.LoRA)
	case "cold":
		v.Cold = c.texts("cold", hivebeat.MaxCold, hivebeat.MaxModel)
	case "exit":
		v.Exit = c.text("exit", hivebeat.MaxEngine)
	case "seq":
		v.Seq = c.uint("seq")
	case "sent":
		v.Sent = c.int("sent")
	case "vram":
		v.VRAM = c.uint("vram")
	case "busy":
		v.Busy = c.uint("busy")
	case "queue":
		v.Queue = c.uint("queue")
	case "done":
		v.Done = c.uint("done")
	case "tokens":
		v.Tokens = c.uint("tokens")
	case "kv":
		v.KV, v.HasKV = c.share("kv"), true
	case "probed":
		v.Probed = c.uint("probed")
	default:
		c.skip()
	}
}

func (c *cursor) lora(v *LoRAView) {
	for range c.pairs("lora") {
		switch string(c.key()) {
		case "max":
			v.Max = c.uint("lora.max")
		case "on":
			v.On = c.texts("lora.on", hivebeat.MaxAdapters, hivebeat.MaxAdapter)
		case "wait":
			v.Wait = c.texts("lora.wait", hivebeat.MaxAdapters, hivebeat.MaxAdapter)
		default:
			c.skip()
		}
	}
}

// share reads a float from 0 to 1.
func (c *cursor) share(key string) float64 {
	v := c.float(key)
	if v < 0 || v > 1 {
		c.fail(hivebeat.RefusedLimit, key, "is not within 0 to 1")
	}
	return v
}

func (c *cursor) labels() Raw {
	return c.textMap("labels", hivebeat.MaxLabels, hivebeat.MaxLabelKey, hivebeat.MaxLabelVal)
}

// facts checks the facts as a whole, once all keys are read.
func (c *cursor) facts(v *FactsView) { c.promise(v.Inc, v.Seq, v.Every) }

// promise checks the keys that every sender must give.
func (c *cursor) promise(inc, seq, every uint64) {
	switch {
	case inc == 0:
		c.fail(hivebeat.RefusedMissing, "inc", "")
	case seq == 0:
		c.fail(hivebeat.RefusedMissing, "seq", "")
	case every == 0:
		c.fail(hivebeat.RefusedMissing, "every", "")
	case time.Duration(every)*time.Millisecond < hivebeat.MinEvery || every > uint64(hivebeat.MaxEvery.Milliseconds()):
		c.fail(hivebeat.RefusedLimit, "every", "is not within 100 to 3600000")
	}
}
