package bus

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// serviceReply begins the reply subjects that a NATS server makes for requests across
// a service import. A client can neither send one nor guess another's. A leaf node can
// send one, and gains nothing: such a subject is in no stream and no bucket, and an
// answer there reaches those alone that subscribe to it.
//
// Replies across gateways (_GR_.) are not accepted: a server takes that head off before
// it shows a request to a client, and lets no client publish there.
const serviceReply = "_R_."

// Inboxes are the reply subjects that a responder answers to. A responder publishes
// its answer with its own permissions wherever the request says: without a check it
// writes to a stream, a bucket or a role's subject for anybody who may ask. The zero
// value accepts _INBOX. and what NATS makes of it for service imports. It is safe for
// concurrent use.
type Inboxes struct{ prefixes []string } // each with its dot

// NewInboxes returns Inboxes that accept prefixes as well, each as
// nats.CustomInboxPrefix takes it: tokens without wildcards and without a dot at the
// end. A prefix under which subjects of s, of a fabric without a prefix or of NATS
// itself lie is an error that wraps hivebeat.ErrSubject.
func NewInboxes(s hivebeat.Subjects, prefixes ...string) (Inboxes, error) {
	var i Inboxes
	for _, p := range prefixes {
		switch {
		case !literal(p):
			return Inboxes{}, fmt.Errorf("%w: %.200q is no inbox prefix: it is one token or more, without wildcards and without a dot at the end", hivebeat.ErrSubject, p)
		case p[0] == '$', s.Overlaps(p):
			return Inboxes{}, fmt.Errorf("%w: %.200q is no inbox prefix: subjects of NATS or of hivebeat begin like that, and answers would go there", hivebeat.ErrSubject, p)
		}
		i.prefixes = append(i.prefixes, p+".")
	}
	return i, nil
}

// Accept reports whether an answer may go to reply.
func (i Inboxes) Accept(reply string) bool {
	under := func(prefix string) bool {
		rest, ok := strings.CutPrefix(reply, prefix)
		return ok && literal(rest)
	}
	if under(nats.InboxPrefix) || under(serviceReply) {
		return true
	}
	for _, p := range i.prefixes {
		if under(p) {
			return true
		}
	}
	return false
}

// literal reports whether subject is one that a message can be published to: tokens
// without spaces, none of them empty or a wildcard.
func literal(subject string) bool {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" {
			return false
		}
	}
	return !strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
