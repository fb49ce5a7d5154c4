// Package doctor checks a NATS for one role of hivebeat. It reports each deficiency, and
// how to remedy it. It changes nothing, and its probes of permissions reach no
// subscriber.
package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/advice"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Role is what the connection will be used for.
type Role string

// The roles.
const (
	Worker    Role = "worker"
	Hive      Role = "hive"
	Queen     Role = "queen"
	Viewer    Role = "viewer"    // ls, get, watch, and programs that ask a queen and change nothing
	Scheduler Role = "scheduler" // asks, and holds capacity
)

// Roles lists the roles.
func Roles() []Role { return []Role{Worker, Hive, Queen, Viewer, Scheduler} }

// Level says how bad a Finding is.
type Level string

// The levels, from good to bad.
const (
	OK   Level = "ok"
	Warn Level = "warn" // works, but a person should act
	Fail Level = "fail" // the role does not work
)

// Finding is the result of one check.
type Finding struct {
	Level Level  `json:"level"`
	Check string `json:"check"` // its name, for programs: server_version, permission, …
	What  string `json:"what"`  // the result, for people
	Do    string `json:"do,omitempty"`
}

// The checks of a Finding, in their order.
const (
	CheckConnection = "connection"
	CheckVersion    = "server_version"
	CheckRoundTrip  = "round_trip"
	CheckPayload    = "max_payload"
	CheckPermission = "permission"
	CheckJetStream  = "jetstream"
	CheckStored     = "stored"   // a bucket, or the stream
	CheckQueen      = "queen"    // whether a queen answers
	CheckConflict   = "conflict" // two processes with one id
	CheckSystem     = "system"   // whether the system account reports which connections close
	CheckEngine     = "engine"   // an inference engine, or a port that may be one
)

// Config says what to check. Role is required.
type Config struct {
	Role     Role
	Subjects hivebeat.Subjects
	// Hive and Worker are the ids of the hive or worker, which its subjects contain.
	// Empty means made-up ids, which the permissions of a particular worker do not
	// allow.
	Hive, Worker string
	// Pinned is as in the Config of the worker or hive: it sends on its own subject.
	Pinned bool
	// Discover says that the hive beats for engines that it finds.
	Discover bool
	// Asker is the id under which a viewer or scheduler asks. Empty means none.
	Asker string
	// NoJetStream, Replicas, Storage and EventsMax are as in the Config of the queen.
	NoJetStream bool
	Replicas    int
	Storage     jetstream.StorageType
	EventsMax   int64
	// Webhooks says that the queen delivers events to webhooks.
	Webhooks bool
}

// madeUp stands for an unknown id.
const madeUp = "doctor"

// Validate returns an error that names the invalid field.
func (c Config) Validate() error {
	if !slices.Contains(Roles(), c.Role) {
		return fmt.Errorf("doctor: Config.Role: %q is not one of %v", c.Role, Roles())
	}
	for field, id := range map[string]string{"Hive": c.Hive, "Worker": c.Worker, "Asker": c.Asker} {
		if id != "" {
			if err := hivebeat.CheckID(strings.ToLower(field), id); err != nil {
				return fmt.Errorf("doctor: Config.%s: %w", field, err)
			}
		}
	}
	return nil
}

// asks reports whether the role asks queens.
func (c Config) asks() bool { return c.Role == Viewer || c.Role == Scheduler }

// limit bounds Check if its context has no deadline, question a single request.
const (
	limit    = 20 * time.Second
	question = 3 * time.Second
)

// Check performs all checks for cfg.Role and returns the findings, in the order of the
// checks. It opens a second connection with the options of nc, so that refusals by NATS
// reach it and not the handlers of nc. nc is borrowed and left alone. The error is that
// of cfg or of ctx; a deficiency of NATS is a Finding.
func Check(ctx context.Context, nc *nats.Conn, cfg Config) ([]Finding, error) {
	if nc == nil {
		return nil, errors.New("doctor: nc is nil")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	p, err := dial(nc)
	if err != nil {
		do := cmp.Or(advice.For(err), "see the server's log, and check --nats, --creds and --tls-ca")
		return []Finding{{Fail, CheckConnection, "no connection to NATS: " + err.Error(), do}}, ctx.Err()
	}
	defer p.close()
	d := &visit{cfg: cfg, p: p}
	d.add(OK, CheckConnection, "connected to %s at %s", "", p.nc.ConnectedServerName(), p.nc.ConnectedAddr())
	d.list = append(d.list, version(p.nc.ConnectedServerVersion()))
	d.roundTrip(ctx)
	d.maxPayload()
	d.permissions(ctx)
	if cfg.Role == Queen && !cfg.NoJetStream {
		d.jetStream(ctx)
	}
	d.permissionFindings()
	if cfg.asks() {
		d.queen(ctx)
	}
	slices.SortStableFunc(d.list, func(a, b Finding) int { return slices.Index(order, a.Check) - slices.Index(order, b.Check) })
	return d.list, ctx.Err()
}

var order = []string{
	CheckConnection, CheckVersion, CheckRoundTrip, CheckPayload, CheckPermission, CheckJetStream, CheckStored, CheckQueen, CheckConflict,
}

// visit is one Check in progress.
type visit struct {
	cfg  Config
	p    *prober
	list []Finding

	needs   []need
	refused map[need]bool
	unknown bool            // the permissions could not be probed
	stored  map[string]bool // streams that exist
}

func (d *visit) add(l Level, check, what, do string, args ...any) {
	d.list = append(d.list, Finding{l, check, fmt.Sprintf(what, args...), do})
}

// slowTrip is far above a usual round trip, and far below one that breaks anything.
const slowTrip = 250 * time.Millisecond

func (d *visit) roundTrip(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, question)
	defer cancel()
	best := time.Duration(0)
	for i := range 5 {
		began := time.Now()
		if err := d.p.nc.FlushWithContext(ctx); err != nil {
			d.add(Fail, CheckRoundTrip, "no answer to a ping: %v", "check the load of the server and the network in between", err)
			return
		}
		if took := time.Since(began); i == 0 || took < best {
			best = took
		}
	}
	shown := best.Round(10 * time.Microsecond)
	if best > slowTrip {
		d.add(Warn, CheckRoundTrip, "a round trip takes %v", "choose --every at least a hundred times longer, so that a few lost packets do not cause a missed beat", shown)
		return
	}
	d.add(OK, CheckRoundTrip, "a round trip takes %v", "", shown)
}

// Half of goodPayload holds a snapshot's head with 64 GPUs, and leaves space for
// workers.
const goodPayload = 64 << 10

func (d *visit) maxPayload() {
	switch n := d.p.nc.MaxPayload(); {
	case n < hivebeat.MaxBeat:
		d.add(Fail, CheckPayload, "max_payload is %d bytes, but a beat may have %d", "raise max_payload in the server's configuration; its default is 1 MiB", n, hivebeat.MaxBeat)
	case n < goodPayload && d.cfg.Role != Worker:
		d.add(Warn, CheckPayload, "max_payload is %d bytes: snapshots are split into many pages", "raise max_payload in the server's configuration; its default is 1 MiB", n)
	default:
		d.add(OK, CheckPayload, "max_payload is %d bytes", "", n)
	}
}

// jetStream checks what the queen stores.
func (d *visit) jetStream(ctx context.Context) {
	for n := range d.refused {
		if n.look {
			d.add(Warn, CheckJetStream, "JetStream was not checked: the permissions for it are missing", "grant those above, and run doctor again")
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*question)
	defer cancel()
	cfg := ledger.Config{
		Subjects: d.cfg.Subjects, Replicas: d.cfg.Replicas, Storage: d.cfg.Storage, EventsMax: d.cfg.EventsMax,
	}
	parts, err := ledger.Inspect(ctx, d.p.nc, cfg)
	said := ""
	if err != nil {
		said = strings.TrimPrefix(err.Error(), "ledger: ")
	}
	switch {
	case errors.Is(err, ledger.ErrNoJetStream):
		d.add(Fail, CheckJetStream, "%s", "start the server with JetStream (nats-server -js) and enable it for this account, or run the queen with --no-jetstream; "+stoppedHint, said)
		return
	case errors.Is(err, ledger.ErrServerTooOld):
		d.add(Fail, CheckJetStream, "%s", "upgrade nats-server, or run the queen with --no-jetstream", said)
		return
	case err != nil:
		d.add(Fail, CheckJetStream, "%s", "see the server's log: JetStream may be starting, without a leader, or out of space; "+stoppedHint, said)
		return
	}
	d.jetStreamOff(parts)
	d.stored = map[string]bool{}
	for _, part := range parts {
		d.stored[part.Stream] = part.Exists
		switch {
		case !part.Exists:
			d.add(OK, CheckStored, "%s does not exist yet: the first queen creates it", "", part.Name)
		case len(part.Differences) > 0:
			d.add(Fail, CheckStored, "%s exists with other settings: %s",
				"run the queen with the existing settings (--storage, --replicas, --events-max), or, if nothing else needs it, remove it: nats stream rm "+part.Stream,
				part.Name, strings.Join(part.Differences, ", "))
		default:
			d.add(OK, CheckStored, "%s has the right settings", "", part.Name)
		}
	}
	d.burst(ctx)
}

const stoppedHint = "a server stops its JetStream when a write fails, mostly because the disk is full: free some space, and restart that server"

// jetStreamOff reports which servers that hold a bucket or the stream have stopped
// their JetStream.
func (d *visit) jetStreamOff(parts []ledger.Part) {
	var off []string
	for _, part := range parts {
		off = append(off, part.Off...)
	}
	if slices.Sort(off); len(off) == 0 {
		d.add(OK, CheckJetStream, "JetStream is on", "")
		return
	}
	d.add(Fail, CheckJetStream, "JetStream is off at %s, and on at other servers, which store everything meanwhile", stoppedHint, strings.Join(slices.Compact(off), ", "))
}

// burst compares the size of the event stream with the size of the fleet, if a queen
// reports it.
func (d *visit) burst(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, question/3)
	defer cancel()
	m, err := d.p.nc.RequestWithContext(ctx, d.cfg.Subjects.Ask("", api.VerbSummary, ""), nil)
	var a api.Answer
	if err != nil || json.Unmarshal(m.Data, &a) != nil || a.Summary == nil {
		return
	}
	workers := 0
	for _, n := range a.Summary.Workers {
		workers += n
	}
	most := cmp.Or(d.cfg.EventsMax, ledger.DefaultEventsMax)
	if need := ledger.BurstBytes(workers); need > most {
		d.add(Warn, CheckStored, "the stream of events has %d MiB: a burst of events of all %d workers takes some %d MiB and would discard the oldest",
			"make it larger: nats stream edit "+d.cfg.Subjects.Stream(hivebeat.StreamEvents)+" --max-bytes, and the same --events-max for every queen",
			most>>20, workers, need>>20)
	}
}
