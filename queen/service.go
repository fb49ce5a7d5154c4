package queen

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// service answers each verb on all its subjects and makes the queen a NATS micro
// service, so that `nats micro ls` finds it. It implements the protocol of
// nats.go/micro itself: micro.AddService sets the connection's closed and error
// handlers, and when it ends it restores those it found, over whatever the program has
// set since. The connection is borrowed, so its handlers are left alone.
type service struct {
	q        *Queen
	identity micro.ServiceIdentity
	started  time.Time
	subs     []subscribed
	shared   []subscribed // on the subjects that all queens share

	backup atomic.Bool            // it answers all requests, in place of a queen that is not heard
	yields atomic.Bool            // other queens may answer the same requests
	stores atomic.Pointer[string] // identity of its buckets and stream; nil until known

	work     context.Context // ends after the last answer
	slots    chan struct{}   // one value for each request answered beside its subscription
	watching chan struct{}   // the same for watch requests
	wg       sync.WaitGroup  // all requests answered beside their subscription
	refused  atomic.Uint64   // requests whose reply subject is no inbox

	mu     sync.Mutex
	stats  []*micro.EndpointStats // by verb
	warned time.Time              // time of the last warning about refused requests
}

// subscribed is a subscription with a channel that is closed once it has handled its
// last message.
type subscribed struct {
	*nats.Subscription
	ended chan struct{}
}

// queueGroup is the default group of micro: one queen of the group answers.
const queueGroup = micro.DefaultQueueGroup

// atOnce is how many requests that may take a while are answered in parallel, apart
// from those that wait for a change.
const atOnce = 64

// introduce makes the queen discoverable as a micro service from its start. A client
// that gets no answer can thus distinguish a queen that is still warming up from the
// absence of queens.
func (q *Queen) introduce(work context.Context) (*service, error) {
	s := &service{
		q: q, work: work, started: time.Now().UTC(), slots: make(chan struct{}, atOnce), watching: make(chan struct{}, maxWatchers+atOnce),
		identity: micro.ServiceIdentity{
			Name: "queen", ID: q.cfg.ID, Version: serviceVersion,
			Metadata: map[string]string{"prefix": q.cfg.Prefix},
		},
	}
	for _, verb := range api.Verbs() {
		s.stats = append(s.stats, &micro.EndpointStats{Name: verb, Subject: q.subjects.API(verb), QueueGroup: queueGroup})
	}
	control := map[micro.Verb]func() any{micro.PingVerb: s.ping, micro.InfoVerb: s.info, micro.StatsVerb: s.counts}
	for verb, reply := range control {
		for _, of := range [][2]string{{"", ""}, {s.identity.Name, ""}, {s.identity.Name, s.identity.ID}} {
			subject, err := micro.ControlSubject(verb, of[0], of[1])
			if err != nil {
				return s, fmt.Errorf("queen: %w", err)
			}
			sub, err := s.subscribe(subject, "", func(m *nats.Msg) {
				if b, err := plaintext.Marshal(reply()); err == nil {
					_ = respond(m, b, nil)
				}
			})
			if err != nil {
				return s, err
			}
			s.subs = append(s.subs, sub)
		}
	}
	return s, nil
}

// serve subscribes to all verbs. It is called when the queen is warm; earlier it would
// be the one of N queens that answers wrongly. It subscribes to the subjects of this
// queen alone first, so that a client that has an answer from it can address it.
func (s *service) serve() (err error) {
	alone, err := s.listen(true, "")
	s.subs = append(s.subs, alone...)
	if err == nil {
		s.shared, err = s.listen(false, queueGroup)
	}
	return err
}

// listen subscribes to all verbs, on the subjects of this queen alone or on those of
// all queens.
func (s *service) listen(alone bool, group string) (subs []subscribed, err error) {
	for i, verb := range api.Verbs() {
		for _, subject := range s.subjects(verb, alone) {
			yields := api.Acts(verb) && !alone && group == ""
			sub, err := s.subscribe(subject, group, func(m *nats.Msg) { s.asked(verb, s.stats[i], m, yields) })
			if err != nil {
				return subs, err
			}
			subs = append(subs, sub)
		}
	}
	return subs, nil
}

// backUp leaves the queue group and answers all requests itself, or returns to the
// group. NATS gives each request to one member of the group; if that member is a
// stopped queen, no other would answer. others says that a third queen may answer the
// same requests.
func (s *service) backUp(on, others bool) error {
	s.yields.Store(others)
	if s.shared == nil || s.backup.Load() == on {
		return nil
	}
	group := queueGroup
	if on {
		group = ""
	}
	subs, err := s.listen(false, group)
	if err != nil {
		for _, sub := range subs {
			_ = sub.Unsubscribe()
		}
		return err
	}
	for _, sub := range s.shared { // requests already received are still answered
		if sub.Drain() != nil {
			_ = sub.Unsubscribe()
		}
	}
	s.shared = subs
	s.backup.Store(on)
	return nil
}

// yieldTime is how long a queen that answers all requests leaves a change, such as a
// hold, to the group member that NATS also gave it to. By then this queen has received
// the change, and gives the same answer.
const yieldTime = 200 * time.Millisecond

// subjects returns the two subjects of a verb, for any queen or for this one alone: the
// one without an asker, and the one for named askers.
func (s *service) subjects(verb string, alone bool) [2]string {
	of, id := s.q.subjects, s.identity.ID
	if alone {
		return [2]string{of.Ask("", verb, id), of.Ask("*", verb, id)}
	}
	return [2]string{of.API(verb), of.Ask("*", verb, "")}
}

// serviceVersion is the version of the API.
const serviceVersion = "1.0.0"

// subscribe passes the requests on subject to fn. It refuses every request whose reply
// subject is not an inbox, whatever the verb.
func (s *service) subscribe(subject, group string, fn nats.MsgHandler) (subscribed, error) {
	checked := func(m *nats.Msg) {
		if m.Reply == "" || s.q.inboxes.Accept(m.Reply) {
			fn(m)
			return
		}
		s.refuse(m)
	}
	var sub *nats.Subscription
	var err error
	if group == "" {
		sub, err = s.q.nc.Subscribe(subject, checked)
	} else {
		sub, err = s.q.nc.QueueSubscribe(subject, group, checked)
	}
	if err != nil {
		return subscribed{}, fmt.Errorf("queen: subscribe %s: %w", subject, err)
	}
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	return subscribed{sub, ended}, nil
}

// open returns the open subscriptions.
func (s *service) open() []subscribed { return slices.Concat(s.subs, s.shared) }

// refuse counts a request whose reply subject is no inbox: this queen may have
// permission to publish there that the requester lacks.
func (s *service) refuse(m *nats.Msg) {
	total := s.refused.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.warned.IsZero() || now.Sub(s.warned) >= warnAgain {
		s.warned = now
		s.q.log.Warn("requests refused: their answers were to go to a subject that is no inbox",
			slog.String("subject", m.Subject), slog.String("reply", m.Reply[:min(len(m.Reply), maxReplyShown)]), slog.Uint64("total", total))
	}
}

const (
	warnAgain     = 10 * time.Second
	maxReplyShown = 256 // bytes
)

// drain stops accepting requests and waits until those already received are answered.
func (s *service) drain(ctx context.Context) {
	all := s.open()
	for _, sub := range all {
		if sub.Drain() != nil {
			_ = sub.Unsubscribe()
		}
	}
	for _, sub := range all {
		select {
		case <-sub.ended:
		case <-ctx.Done():
			_ = sub.Unsubscribe()
		}
	}
	answered := make(chan struct{})
	s.q.wg.Go(func() { s.wg.Wait(); close(answered) })
	select {
	case <-answered:
	case <-ctx.Done():
	}
}

// asked answers a request. A request that may take a while is answered beside the
// subscription, so that it does not delay others. yields says that another queen may
// have received the same request and should be the first to change something.
func (s *service) asked(verb string, stats *micro.EndpointStats, m *nats.Msg, yields bool) {
	switch verb {
	case api.VerbSummary, api.VerbHive, api.VerbWorker:
		s.ask(verb, stats, m)
		return
	}
	slots := s.slots
	if verb == api.VerbWatch { // the queen bounds how many watchers wait
		slots = s.watching
	}
	slots <- struct{}{}
	s.wg.Go(func() {
		defer func() { <-slots }()
		if yields && s.yields.Load() {
			_ = s.q.pause(s.work, yieldTime)
		}
		s.ask(verb, stats, m)
	})
}

// ask answers one request.
func (s *service) ask(verb string, stats *micro.EndpointStats, m *nats.Msg) {
	began := time.Now()
	asker, _, _, bad := s.q.subjects.ParseAPI(m.Subject)
	asker = cmp.Or(asker, api.Anyone)
	r, err := api.DecodeRequest(m.Data)
	err = cmp.Or(bad, err)
	ctx, cancel := context.WithTimeout(s.work, askTimeout+min(r.Wait, hivebeat.MillisOf(time.Minute)).Duration())
	defer cancel()
	var a api.Answer
	var body []byte
	if limit := int(s.q.nc.MaxPayload()); err != nil {
		a = s.q.refuse(ctx, api.CodeBadRequest, err.Error())
		a.Status.Asker = asker
		body, _ = encodeAnswer(&a, limit)
	} else {
		a, body = fitting(func(r api.Request) api.Answer { return s.q.answerTo(ctx, asker, verb, r) }, verb, r, limit)
	}
	err = respond(m, body, a.Error)

	s.mu.Lock()
	defer s.mu.Unlock()
	stats.NumRequests++
	stats.ProcessingTime += time.Since(began)
	stats.AverageProcessingTime = stats.ProcessingTime / time.Duration(stats.NumRequests)
	switch {
	case a.Error != nil:
		stats.NumErrors++
		stats.LastError = a.Error.Code + ":" + a.Error.Message
	case err != nil:
		stats.NumErrors++
		stats.LastError = err.Error()
	}
}

// respond sends an answer of the service. If failed is not nil, it also goes into the
// headers.
func respond(m *nats.Msg, body []byte, failed *api.Error) error {
	if m.Reply == "" {
		return nil
	}
	reply := nats.NewMsg(m.Reply)
	reply.Data = body
	if failed != nil {
		reply.Header.Set(micro.ErrorHeader, failed.Message)
		reply.Header.Set(micro.ErrorCodeHeader, failed.Code)
	}
	return m.RespondMsg(reply) //nolint:forbidigo // subscribe has checked where to
}

// askTimeout bounds how long a request waits for the loop.
const askTimeout = 5 * time.Second

// fitting calls ask, and calls it again for half as much while the answer takes more
// than limit bytes as JSON.
func fitting(ask func(api.Request) api.Answer, verb string, r api.Request, limit int) (api.Answer, []byte) {
	for {
		a := ask(r)
		b, fits := encodeAnswer(&a, limit)
		if fits {
			return a, b
		}
		less, ok := shorter(verb, r, &a)
		if !ok {
			a = api.Answer{Status: a.Status, Error: &api.Error{Code: api.CodeTooLarge, Message: "the answer has " + strconv.Itoa(len(b)) + " bytes, more than the server's max_payload"}}
			b, _ = encodeAnswer(&a, limit)
			return a, b
		}
		r = less
	}
}

// encodeAnswer returns the JSON of a, fit to be printed, and whether it fits into limit bytes together
// with the headers.
func encodeAnswer(a *api.Answer, limit int) (b []byte, fits bool) {
	b, err := plaintext.Marshal(a)
	if err != nil {
		*a = api.Answer{Status: a.Status, Error: &api.Error{Code: api.CodeTooLarge, Message: "the answer can not be encoded: " + err.Error()}}
		b, _ = plaintext.Marshal(a)
	}
	limit -= headroom
	return b, len(b) <= limit || limit <= 0 || a.Error != nil
}

// headroom is the space, in bytes, left for the headers of an answer.
const headroom = 1 << 10

// who returns the current identity of the service.
func (s *service) who() micro.ServiceIdentity {
	i := s.identity
	if stores := s.stores.Load(); stores != nil {
		i.Metadata = maps.Clone(i.Metadata)
		i.Metadata["stores"] = *stores
	}
	return i
}

func (s *service) ping() any {
	return micro.Ping{ServiceIdentity: s.who(), Type: micro.PingResponseType}
}

func (s *service) info() any {
	i := micro.Info{
		ServiceIdentity: s.who(), Type: micro.InfoResponseType,
		Description: "hivebeat queen: who is alive, what does it serve, how much VRAM is free, and how sure is that",
	}
	for _, e := range s.stats {
		shared, alone := s.subjects(e.Name, false), s.subjects(e.Name, true)
		i.Endpoints = append(i.Endpoints, micro.EndpointInfo{
			Name: e.Name, Subject: e.Subject, QueueGroup: e.QueueGroup,
			Metadata: map[string]string{"pinned": shared[1], "addressed": alone[0], "addressed_pinned": alone[1]},
		})
	}
	return i
}

func (s *service) counts() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := micro.Stats{ServiceIdentity: s.who(), Type: micro.StatsResponseType, Started: s.started}
	for _, e := range s.stats {
		c := *e
		r.Endpoints = append(r.Endpoints, &c)
	}
	return r
}
