package hivebeat

import (
	"fmt"
	"strings"
)

// Tokens of the subject grammar (docs/PROTOCOL.md, section 2). No other file spells out
// a subject.
const (
	tokHive     = "hive"
	tokQueen    = "queen"
	tokWorkers  = "workers"
	tokHives    = "hives"
	tokRollcall = "rollcall"
	tokEvents   = "events"
	tokLog      = "log"
	tokAPI      = "api"
	tokAs       = "as"
	tokLive     = "!live" // no id contains this byte
	tokWorker   = "worker"
	tokPeers    = "peers"
)

// Names of the queen's buckets and stream in JetStream, without the prefix.
const (
	BucketHives  = "queen_hives"
	BucketRoster = "queen_roster"
	StreamEvents = "QUEEN_EVENTS"
)

// Subjects builds and parses every subject of one fabric. The zero value has no prefix.
// Its builders expect valid ids (CheckID); given others they build subjects that do not
// parse. It is safe for concurrent use.
type Subjects struct{ dot string } // the prefix with its dot, or empty

// NewSubjects returns the subjects below prefix, which is empty or one id. _INBOX, _R_
// and _GR_ are not valid prefixes, because NATS delivers replies below them.
func NewSubjects(prefix string) (Subjects, error) {
	if prefix == "" {
		return Subjects{}, nil
	}
	if err := CheckID("prefix", prefix); err != nil {
		return Subjects{}, err
	}
	switch prefix {
	case "_INBOX", "_R_", "_GR_":
		return Subjects{}, fmt.Errorf("%w: prefix %q is reserved: NATS delivers replies below it", ErrID, prefix)
	}
	return Subjects{dot: prefix + "."}, nil
}

// Prefix returns the prefix, without a dot.
func (s Subjects) Prefix() string { return strings.TrimSuffix(s.dot, ".") }

// Overlaps reports whether a subject below prefix, which is one or more tokens, may
// belong to this fabric or to a fabric without a prefix.
func (s Subjects) Overlaps(prefix string) bool {
	rest, below := strings.CutPrefix(prefix+".", s.dot)
	first, _, _ := strings.Cut(rest, ".")
	return first == tokHive || first == tokQueen || below && first == ""
}

func (s Subjects) join(tokens ...string) string { return s.dot + strings.Join(tokens, ".") }

// Workers returns the subject on which the workers of a hive beat: hive.<hive>.workers.
func (s Subjects) Workers(hive string) string { return s.join(tokHive, hive, tokWorkers) }

// Worker returns the pinned form, for the permissions of one worker:
// hive.<hive>.workers.<worker>.
func (s Subjects) Worker(hive, worker string) string {
	return s.join(tokHive, hive, tokWorkers, worker)
}

// WorkersPinned matches the pinned form of every worker of a hive.
func (s Subjects) WorkersPinned(hive string) string { return s.Worker(hive, "*") }

// WorkerRollcall returns the subject that asks the workers of a hive to beat now:
// hive.<hive>.rollcall.
func (s Subjects) WorkerRollcall(hive string) string { return s.join(tokHive, hive, tokRollcall) }

// Hives returns the subject on which hives send their snapshots: queen.hives.
func (s Subjects) Hives() string { return s.join(tokQueen, tokHives) }

// Hive returns the pinned form of Hives: queen.hives.<hive>.
func (s Subjects) Hive(hive string) string { return s.join(tokQueen, tokHives, hive) }

// HivesPinned matches the pinned form of every hive.
func (s Subjects) HivesPinned() string { return s.Hive("*") }

// HiveRollcall returns the subject that asks all hives for a snapshot now:
// queen.rollcall.
func (s Subjects) HiveRollcall() string { return s.join(tokQueen, tokRollcall) }

// HiveRollcallOf returns the subject that asks one hive: queen.rollcall.<hive>.
func (s Subjects) HiveRollcallOf(hive string) string { return s.join(tokQueen, tokRollcall, hive) }

// Peers returns the subject on which queens hear each other: queen.peers.
func (s Subjects) Peers() string { return s.join(tokQueen, tokPeers) }

// Event returns the subject on which subscribers receive an event. With an empty worker
// it is an event of the hive itself, with an empty hive one of the fabric (the brake):
// queen.events.[<hive>.[<worker>.]]<kind>.
func (s Subjects) Event(hive, worker string, kind Kind) string {
	return s.event(tokEvents, hive, worker, kind)
}

// EventLog returns the subject on which queens publish an event. The stream stores it
// and republishes it on Event: queen.log.<same tail>.
func (s Subjects) EventLog(hive, worker string, kind Kind) string {
	return s.event(tokLog, hive, worker, kind)
}

func (s Subjects) event(tok, hive, worker string, kind Kind) string {
	switch {
	case hive == "":
		return s.join(tokQueen, tok, string(kind))
	case worker == "":
		return s.join(tokQueen, tok, hive, string(kind))
	}
	return s.join(tokQueen, tok, hive, worker, string(kind))
}

// LiveEvent returns the subject of an event of a hive or worker that is not stored yet.
// The patterns of Event do not match it: queen.events.!live.hive.<hive>.<kind> or
// queen.events.!live.worker.<hive>.<worker>.<kind>.
func (s Subjects) LiveEvent(hive, worker string, kind Kind) string {
	if worker == "" {
		return s.join(tokQueen, tokEvents, tokLive, tokHive, hive, string(kind))
	}
	return s.join(tokQueen, tokEvents, tokLive, tokWorker, hive, worker, string(kind))
}

// Events matches every event, including those of LiveEvent.
func (s Subjects) Events() string { return s.join(tokQueen, tokEvents, ">") }

// EventLogs matches every event on its way to the stream.
func (s Subjects) EventLogs() string { return s.join(tokQueen, tokLog, ">") }

// EventLogsOf matches the events of a hive and of its workers on their way to the
// stream, or those of one worker. With an empty hive it is EventLogs.
func (s Subjects) EventLogsOf(hive, worker string) string {
	switch {
	case hive == "":
		return s.EventLogs()
	case worker == "":
		return s.join(tokQueen, tokLog, hive, ">")
	}
	return s.join(tokQueen, tokLog, hive, worker, ">")
}

// API returns the subject on which a queen answers a verb: queen.api.<verb>.
func (s Subjects) API(verb string) string { return s.join(tokQueen, tokAPI, verb) }

// Ask is the general form of API. With an asker the subject is pinned, for the
// permissions of that asker. With a queen only that queen answers:
// queen.api.<verb>[.<queen>] or queen.as.<asker>.<verb>[.<queen>].
func (s Subjects) Ask(asker, verb, queen string) string {
	tokens := []string{tokQueen, tokAPI, verb}
	if asker != "" {
		tokens = []string{tokQueen, tokAs, asker, verb}
	}
	if queen != "" {
		tokens = append(tokens, queen)
	}
	return s.join(tokens...)
}

// Bucket returns the name of a KV bucket: <prefix>_<name>, or the name alone.
func (s Subjects) Bucket(name string) string { return s.named(name) }

// Stream returns the name of a stream: <prefix>_<name>, or the name alone.
func (s Subjects) Stream(name string) string { return s.named(name) }

func (s Subjects) named(name string) string {
	if s.dot == "" {
		return name
	}
	return s.Prefix() + "_" + name
}

// ParseWorkers returns the ids in a subject of Workers or Worker. worker is empty in
// the unpinned form.
func (s Subjects) ParseWorkers(subject string) (hive, worker string, err error) {
	rest, ok := strings.CutPrefix(subject, s.dot+tokHive+".")
	if ok {
		hive, rest, ok = strings.Cut(rest, "."+tokWorkers)
	}
	if ok && rest != "" {
		worker, ok = strings.CutPrefix(rest, ".")
		ok = ok && ValidID(worker)
	}
	if !ok || !ValidID(hive) {
		return "", "", s.bad(subject, "hive.<hive>.workers[.<worker>]")
	}
	return hive, worker, nil
}

// ParseHives returns the id in a subject of Hives or Hive. The id is empty in the
// unpinned form.
func (s Subjects) ParseHives(subject string) (hive string, err error) {
	rest, ok := strings.CutPrefix(subject, s.dot+tokQueen+"."+tokHives)
	if ok && rest != "" {
		hive, ok = strings.CutPrefix(rest, ".")
		ok = ok && ValidID(hive)
	}
	if !ok {
		return "", s.bad(subject, "queen.hives[.<hive>]")
	}
	return hive, nil
}

// ParseAPI returns the parts of a subject of API or Ask. asker is empty in the forms
// that are not pinned, queen in those that any queen answers.
func (s Subjects) ParseAPI(subject string) (asker, verb, queen string, err error) {
	rest, ok := strings.CutPrefix(subject, s.dot+tokQueen+"."+tokAPI+".")
	pinned := false
	if !ok {
		if rest, pinned = strings.CutPrefix(subject, s.dot+tokQueen+"."+tokAs+"."); pinned {
			asker, rest, ok = strings.Cut(rest, ".")
		}
	}
	verb, queen, addressed := strings.Cut(rest, ".")
	switch {
	case !ok, !ValidID(verb), addressed && !ValidID(queen):
		return "", "", "", s.bad(subject, "queen.api.<verb>[.<queen>] or queen.as.<asker>.<verb>[.<queen>]")
	case pinned:
		if err := CheckID("asker", asker); err != nil {
			return "", "", "", err
		}
	}
	return asker, verb, queen, nil
}

func (s Subjects) bad(subject, form string) error {
	return fmt.Errorf("%w: %.200q is not %s%s", ErrSubject, subject, s.dot, form)
}
