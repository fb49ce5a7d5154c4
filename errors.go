package hivebeat

import "errors"

// Errors that callers branch on. They are returned wrapped, with details of the fault;
// compare with errors.Is.
var (
	// ErrID: an id is empty, too long, or contains a character other than
	// A-Z a-z 0-9 _ -.
	ErrID = errors.New("invalid id")
	// ErrSubject: a subject does not follow the grammar of docs/PROTOCOL.md.
	ErrSubject = errors.New("invalid subject")
	// ErrStopped: the worker, hive or queen was stopped and cannot be used again.
	ErrStopped = errors.New("stopped")
	// ErrRefused: a message was refused. ReasonOf returns the reason.
	ErrRefused = errors.New("refused")
)

// Reason says why a message was refused. Refusals are counted by reason.
type Reason string

// The reasons, one for each rule that a message can break.
const (
	RefusedMalformed Reason = "malformed" // not one whole msgpack value: truncated, trailing bytes, a reserved byte, an ext type
	RefusedDepth     Reason = "depth"     // nested deeper than MaxDepth
	RefusedSize      Reason = "size"      // larger than a message of its kind may be
	RefusedKey       Reason = "key"       // a key that is not a string, or appears twice in one map
	RefusedUTF8      Reason = "utf8"      // a string that is not UTF-8
	RefusedType      Reason = "type"      // a known key with a value of another type, or a negative uint
	RefusedLimit     Reason = "limit"     // a value over its limit
	RefusedMissing   Reason = "missing"   // a required key is missing or zero
	RefusedVersion   Reason = "version"   // v is not 1
	RefusedID        Reason = "id"        // an invalid id
	RefusedForeign   Reason = "foreign"   // meant for another hive, a beat where snapshots go, or an id that differs from the subject's
	RefusedFull      Reason = "full"      // one worker more than MaxWorkers
	RefusedStale     Reason = "stale"     // seq not above the last one, a superseded incarnation, or sent after its goodbye
	RefusedOlder     Reason = "older"     // a lower incarnation while a higher one is alive
)

// Reasons lists every reason, in the order of the checks.
func Reasons() []Reason {
	return []Reason{
		RefusedMalformed, RefusedDepth, RefusedSize, RefusedKey, RefusedUTF8, RefusedType, RefusedLimit, RefusedMissing,
		RefusedVersion, RefusedID, RefusedForeign, RefusedFull, RefusedStale, RefusedOlder,
	}
}

// Refusal is the error of a refused message. It wraps ErrRefused.
type Refusal struct {
	Reason Reason
	Key    string // the key at fault, if any
	Detail string // for people
}

func (r *Refusal) Error() string {
	s := "refused: " + string(r.Reason)
	if r.Key != "" {
		s += ": " + r.Key
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}

// Unwrap makes errors.Is(err, ErrRefused) true.
func (r *Refusal) Unwrap() error { return ErrRefused }

// ReasonOf returns the reason in err, or "" if err is not a refusal.
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	return ""
}
