package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/inbox"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/queen/api"
)

// prober asks NATS for its permissions, on a separate connection: NATS reports a
// refusal only to the connection's error handler.
type prober struct {
	nc *nats.Conn

	mu    sync.Mutex
	texts []string // of permission violations
	more  chan struct{}
}

// dial connects as nc did, but without reconnects and with other handlers.
func dial(nc *nats.Conn) (*prober, error) {
	p := &prober{more: make(chan struct{}, 1)}
	o := nc.Opts
	o.Name = "hivebeat doctor"
	o.RetryOnFailedConnect, o.AllowReconnect = false, false
	o.ClosedCB, o.DisconnectedCB, o.DisconnectedErrCB, o.ConnectedCB, o.ReconnectedCB = nil, nil, nil, nil, nil
	o.DiscoveredServersCB, o.ReconnectErrCB, o.LameDuckModeHandler = nil, nil, nil
	o.AsyncErrorCB = p.violated
	// Each subscription allocates a channel of this length at once: 512 KiB with the
	// default, and a probe subscribes to some 40 subjects.
	o.SubChanLen = 1024
	var err error
	p.nc, err = o.Connect()
	return p, err
}

func (p *prober) close() { p.nc.Close() }

func (p *prober) violated(_ *nats.Conn, _ *nats.Subscription, err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	p.mu.Lock()
	p.texts = append(p.texts, err.Error())
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// said reports whether the text of a violation ends with text.
func (p *prober) said(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.texts {
		if strings.HasSuffix(t, text) {
			return true
		}
	}
	return false
}

// probe returns the needs that NATS refuses.
//
// It really subscribes, and unsubscribes after a round trip. The subscription takes no
// request away from a queen, because it is in no queue group, and receives at most one
// message.
//
// It really publishes as well, but with a reply subject that clients may not use (_R_.
// belongs to the server's own service imports). The server checks the permission for
// the subject first and for the reply next, and drops the message. So each attempt ends
// in one of two refusals, and no message is delivered. An empty message to the real
// subjects would not do: running hives and queens would count it as refused, and a
// stream would store it. Each attempt is one line in the server's log.
func (p *prober) probe(ctx context.Context, needs []need) (refused map[need]bool, err error) {
	var subs []*nats.Subscription
	for _, n := range needs {
		if n.publish {
			continue
		}
		s, err := p.nc.SubscribeSync(n.subject)
		if err != nil {
			return nil, fmt.Errorf("subscribe to %s: %w", n.subject, err)
		}
		if err := s.AutoUnsubscribe(1); err != nil {
			return nil, err
		}
		subs = append(subs, s)
	}
	if err := p.nc.FlushWithContext(ctx); err != nil {
		return nil, err
	}
	for _, s := range subs {
		_ = s.Unsubscribe()
	}

	reply := "_R_." + nuid.Next() + "."
	type outcome struct{ refused, allowed string }
	outcomes := make([]outcome, 0, len(needs)+1)
	try := func(subject string) error {
		o := outcome{
			refused: fmt.Sprintf("Publish to %q", subject),
			allowed: fmt.Sprintf("Publish with Reply of %q", fmt.Sprint(reply, len(outcomes))),
		}
		outcomes = append(outcomes, o)
		return p.nc.PublishRequest(subject, fmt.Sprint(reply, len(outcomes)-1), nil)
	}
	ended := func(o outcome) bool { return p.said(o.refused) || p.said(o.allowed) }
	wait := func() error {
		if err := p.nc.FlushWithContext(ctx); err != nil {
			return err
		}
		// The server has answered every attempt by now. What is still on its way is the
		// call of the error handler.
		ctx, cancel := context.WithTimeout(ctx, question)
		defer cancel()
		for {
			all := true
			for _, o := range outcomes {
				all = all && ended(o)
			}
			if all {
				return nil
			}
			select {
			case <-p.more:
			case <-ctx.Done():
				return errors.New("the server does not refuse a reserved reply subject")
			}
		}
	}
	// The first subject has no subscribers: if the server lets it through, no other
	// attempt follows. Its refusal also comes after all refusals of subscriptions.
	if err := try("hivebeat.doctor." + nuid.Next()); err != nil {
		return nil, err
	}
	if err := wait(); err != nil {
		return nil, err
	}
	for _, n := range needs {
		if n.publish {
			if err := try(n.subject); err != nil {
				return nil, fmt.Errorf("publish to %s: %w", n.subject, err)
			}
		}
	}
	if err := wait(); err != nil {
		return nil, err
	}
	refused = map[need]bool{}
	for _, n := range needs {
		text := fmt.Sprintf("Subscription to %q", n.subject)
		if n.publish {
			text = fmt.Sprintf("Publish to %q", n.subject)
		}
		if p.said(text) {
			refused[n] = true
		}
	}
	return refused, nil
}

func (d *visit) permissions(ctx context.Context) {
	d.needs = d.cfg.needs(d.p.nc.NewInbox() + ".*")
	refused, err := d.p.probe(ctx, d.needs)
	if err != nil {
		d.unknown = true
		d.add(Warn, CheckPermission, "cannot check the permissions: %v", "compare them with docs/OPERATIONS.md by hand", err)
	}
	d.refused = refused
}

// permissionFindings reports each refusal, or in one line that there is none: next to a
// refusal, a count of what is allowed would read like good news. It runs after
// jetStream: what exists need not be created. It also reports permissions beyond the
// role.
func (d *visit) permissionFindings() {
	if d.unknown {
		return
	}
	needed := map[bool]int{} // count by publish
	var missing []need
	var beyond []string
	for _, n := range d.needs {
		switch {
		case n.beyond:
			if !d.refused[n] {
				beyond = append(beyond, strconv.Quote(wild(n.subject)))
			}
			continue
		case d.refused[n]:
			missing = append(missing, n)
		}
		needed[n.publish]++
	}
	for _, n := range missing {
		level, what := Fail, fmt.Sprintf("this user may not %s %s, to %s", n.verb(), n.subject, n.why)
		switch {
		case n.makes != "" && d.stored[n.makes]:
			level = Warn
			what += "; it exists, so this is needed only to create it again"
		case n.without != "":
			level = Warn
			what += "; without this, " + n.without
		}
		d.add(level, CheckPermission, "%s", d.grant(n), what)
	}
	if len(missing) == 0 {
		d.add(OK, CheckPermission, "this user has every permission that a %s needs: publish to %s, subscribe to %d", "",
			d.cfg.Role, subjects(needed[true]), needed[false])
	}
	if len(beyond) > 0 {
		d.add(Warn, CheckPermission, "this user may also hold and release capacity, which a %s does not need",
			"deny it in the user's permissions: publish = { deny: ["+strings.Join(beyond, ", ")+"] }", d.cfg.Role)
	}
}

func subjects(n int) string {
	if n == 1 {
		return "1 subject"
	}
	return strconv.Itoa(n) + " subjects"
}

func (d *visit) grant(n need) string {
	verb := "subscribe"
	if n.publish {
		verb = "publish"
	}
	do := fmt.Sprintf("allow it in the user's permissions: %s = %q", verb, n.subject)
	switch {
	case d.cfg.Hive == "" && (d.cfg.Role == Worker || d.cfg.Role == Hive):
		do += "; or pass the ids that these permissions are for"
	case n.publish && d.cfg.asks() && d.cfg.Asker == "":
		do += "; or pass the id under which this user may ask with --asker"
	case n.publish && n.why == "beat" && !d.cfg.Pinned, n.publish && n.why == "send snapshots" && !d.cfg.Pinned:
		do += "; or run with --pinned, if the user may only use its own subject"
	}
	return do
}

// queen checks whether a queen answers.
func (d *visit) queen(ctx context.Context) {
	for n := range d.refused {
		if n.without == "" && !n.beyond {
			return // the request would be refused, or its answer
		}
	}
	ctx, cancel := context.WithTimeout(ctx, question)
	defer cancel()
	subject := d.cfg.Subjects.Ask(d.cfg.Asker, api.VerbSummary, "")
	began := time.Now()
	m, err := d.p.nc.RequestWithContext(ctx, subject, nil)
	var a api.Answer
	if err == nil {
		err = json.Unmarshal(m.Data, &a)
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		d.add(Warn, CheckQueen, "no queen answers at %s", "start one with hivebeat queen, or pass the --prefix of its fabric", subject)
	case err != nil && !(inbox.Allowed{}).Accept(d.p.nc.NewInbox()):
		d.add(Warn, CheckQueen, "no answer from a queen at %s: %v", "this connection has its own inbox prefix: start the queens with --inbox-prefix "+d.p.nc.Opts.InboxPrefix, subject, err)
	case err != nil:
		d.add(Warn, CheckQueen, "no answer from a queen at %s: %v", "see the queen's log", subject, err)
	case len(a.Status.Unsure) > 0:
		d.add(Warn, CheckQueen, "queen %s answers, but is not sure: %s", "see the queen's log; after a start this passes by itself", a.Status.Queen, strings.Join(a.Status.Unsure, ", "))
	default:
		d.add(OK, CheckQueen, "queen %s answers in %v", "", a.Status.Queen, time.Since(began).Round(10*time.Microsecond))
	}
	if err == nil {
		d.conflicts(ctx)
	}
	d.stores(ctx)
}

const (
	conflictsOf   = time.Hour // a conflict is reported once, and may last
	mostConflicts = 20
)

// conflicts finds pairs of processes that still use one id.
func (d *visit) conflicts(ctx context.Context) {
	ask := func(verb string, r api.Request) (a api.Answer) {
		body, err := json.Marshal(r)
		if err != nil {
			return a
		}
		if m, err := d.p.nc.RequestWithContext(ctx, d.cfg.Subjects.Ask(d.cfg.Asker, verb, ""), body); err == nil {
			_ = json.Unmarshal(m.Data, &a) // an answer that cannot be parsed is as good as none
		}
		return a
	}
	told := make(map[string]bool)
	for _, ev := range ask(api.VerbEvents, api.Request{Kinds: []hivebeat.Kind{hivebeat.KindConflict}, Since: hivebeat.MillisOf(conflictsOf), Limit: mostConflicts}).Events {
		if told[ev.Subject] {
			continue
		}
		told[ev.Subject] = true
		on := false
		if ev.Data.Worker != "" {
			a := ask(api.VerbWorker, api.Request{Hive: ev.Data.Hive, Worker: ev.Data.Worker})
			on = len(a.Workers) == 1 && a.Workers[0].Rival != 0
		} else {
			a := ask(api.VerbHive, api.Request{Hive: ev.Data.Hive})
			on = len(a.Hives) == 1 && a.Hives[0].Conflict
		}
		if on {
			d.add(Warn, CheckConflict, "%s", liveness.ConflictHint, strings.TrimSuffix(ev.Data.Reason, "; "+liveness.ConflictHint))
		}
	}
}

// quiet is how long stores waits for the next answer.
const quiet = 200 * time.Millisecond

// stores pings all queens of the fabric, and checks that they use the same buckets.
func (d *visit) stores(ctx context.Context) {
	subject, _ := micro.ControlSubject(micro.PingVerb, "queen", "")
	sub, err := d.p.nc.SubscribeSync(d.p.nc.NewInbox())
	if err != nil {
		return
	}
	defer func() { _ = sub.Unsubscribe() }()
	if d.p.nc.PublishRequest(subject, sub.Subject, nil) != nil {
		return
	}
	queens := make(map[string][]string) // by the identity of their stores
	for ctx.Err() == nil {
		m, err := sub.NextMsg(quiet)
		if err != nil {
			break
		}
		var p micro.Ping
		if json.Unmarshal(m.Data, &p) == nil && p.Metadata["prefix"] == d.cfg.Subjects.Prefix() && p.Metadata["stores"] != "" {
			queens[p.Metadata["stores"]] = append(queens[p.Metadata["stores"]], p.ID)
		}
	}
	if len(queens) < 2 {
		return
	}
	var groups []string
	for _, ids := range queens {
		slices.Sort(ids)
		groups = append(groups, strings.Join(ids, ", "))
	}
	slices.Sort(groups)
	d.add(Warn, CheckQueen, "the queens of this fabric do not share a store: %s", "start all of them with the same JetStream (domain, account, --prefix, --no-jetstream): holds and verdicts are shared only through it",
		strings.Join(groups, " apart from "))
}
