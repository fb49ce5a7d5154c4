// Package inbox decides which reply subjects a responder may answer. Queens obey it, and
// the commands and doctor use it to warn that no queen will answer.
package inbox

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// serviceReply begins the reply subjects that a NATS server creates for requests across
// a service import. A client can neither send such a reply subject nor guess another
// client's. A leaf node can send one, but gains nothing: no stream and no bucket
// contains such a subject, and an answer there reaches only the clients that subscribe
// to it.
//
// Replies across gateways (_GR_.) are not accepted. A server strips that prefix before
// it delivers a request to a client, and lets no client publish there.
const serviceReply = "_R_."

// Allowed are the reply subjects that a responder answers to. A responder publishes its
// answer with its own permissions to the subject that the request names. Without a
// check, any client that may ask could make it write to a stream, a bucket or a role's
// subject. The zero value accepts _INBOX. and the subjects that NATS derives from it
// for service imports. It is safe for concurrent use.
type Allowed struct{ prefixes []string } // each with a trailing dot

// New returns Allowed that also accept prefixes, each in the form that
// nats.CustomInboxPrefix takes: tokens without wildcards and without a trailing dot. A
// prefix that could cover subjects of s, of a fabric without a prefix or of NATS itself
// is an error that wraps hivebeat.ErrSubject.
func New(s hivebeat.Subjects, prefixes ...string) (Allowed, error) {
	var a Allowed
	for _, p := range prefixes {
		switch {
		case !literal(p):
			return Allowed{}, fmt.Errorf("%w: %.200q is no inbox prefix: it is one token or more, without wildcards and without a dot at the end", hivebeat.ErrSubject, p)
		case p[0] == '$', s.Overlaps(p):
			return Allowed{}, fmt.Errorf("%w: %.200q is no inbox prefix: subjects of NATS or of hivebeat begin like that, and answers would go there", hivebeat.ErrSubject, p)
		}
		a.prefixes = append(a.prefixes, p+".")
	}
	return a, nil
}

// Accept reports whether an answer may be published to reply.
func (a Allowed) Accept(reply string) bool {
	under := func(prefix string) bool {
		rest, ok := strings.CutPrefix(reply, prefix)
		return ok && literal(rest)
	}
	if under(nats.InboxPrefix) || under(serviceReply) {
		return true
	}
	for _, p := range a.prefixes {
		if under(p) {
			return true
		}
	}
	return false
}

// literal reports whether a message can be published to subject: its tokens contain no
// spaces, and none is empty or a wildcard.
func literal(subject string) bool {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" {
			return false
		}
	}
	return !strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
