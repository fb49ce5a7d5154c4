package inbox

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

func TestInboxesAccept(t *testing.T) {
	own, err := New(hivebeat.Subjects{}, "_INBOX_ops", "acme.inbox")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reply      string
		zero, also bool // accepted by the zero value, and with the prefixes above
	}{
		{nats.NewInbox(), true, true},
		{"_INBOX.a", true, true},
		{"_INBOX.ops.a.b", true, true}, // a prefix below the default one is accepted without configuration
		{"_R_.Ab3dEf.1y2Xc3", true, true},
		{"_INBOX_ops.a.b", false, true},
		{"acme.inbox.a", false, true},
		{"acme.inbox", false, false},
		{"acme.inboxes.a", false, false},
		{"acme.other.a", false, false},
		{"", false, false},
		{"_INBOX", false, false},
		{"_INBOX.", false, false},
		{"_INBOX..a", false, false},
		{"_INBOX.a.", false, false},
		{"_INBOX.*", false, false},
		{"_INBOX.a.>", false, false},
		{"_INBOX.a b", false, false},
		{"_INBOX.a\r\nPUB", false, false},
		{"_INBOXES.a", false, false},
		{"_inbox.a", false, false},
		{"x._INBOX.a", false, false},
		{"_R_", false, false},
		{"_R_.>", false, false},
		{"_GR_.clustr.server._INBOX.a", false, false},
		{"$GR.clustr._INBOX.a", false, false},
		{"queen.log.gpu-01.w1.lost", false, false},
		{"$KV.queen_hives.gpu-01", false, false},
		{"$JS.API.STREAM.DELETE.QUEEN_EVENTS", false, false},
	} {
		if got := (Allowed{}).Accept(c.reply); got != c.zero {
			t.Errorf("%q by default: %v", c.reply, got)
		}
		if got := own.Accept(c.reply); got != c.also {
			t.Errorf("%q with prefixes: %v", c.reply, got)
		}
	}
}

func TestInboxPrefixes(t *testing.T) {
	for _, c := range []struct {
		fabric, prefix string
		good           bool
	}{
		{"", "_INBOX_ops", true},
		{"", "inbox.ops", true},
		{"", "_INBOX", true}, // accepted anyway
		{"", "acme.queen", true},
		{"acme", "acme.inbox", true},
		{"acme", "acmes", true},
		{"", "", false},
		{"", "_INBOX_ops.", false},
		{"", ".ops", false},
		{"", "a..b", false},
		{"", "ops.*", false},
		{"", ">", false},
		{"", "a b", false},
		{"", "a\x00b", false},
		{"", "$KV", false},
		{"", "$JS.API", false},
		{"", "$SYS.REQ", false},
		{"", "$made.up", false},
		{"", "queen", false},
		{"", "queen.inbox", false},
		{"", "hive.gpu-01", false},
		{"acme", "acme", false},
		{"acme", "acme.queen", false},
		{"acme", "acme.queen.log", false},
		{"acme", "acme.hive.x", false},
		{"acme", "queen.log", false},
	} {
		s, err := hivebeat.NewSubjects(c.fabric)
		if err != nil {
			t.Fatal(err)
		}
		_, err = New(s, "_INBOX_fine", c.prefix)
		switch {
		case c.good != (err == nil):
			t.Errorf("prefix %q in the fabric %q: %v", c.prefix, c.fabric, err)
		case err != nil && (!errors.Is(err, hivebeat.ErrSubject) || !strings.Contains(err.Error(), "inbox prefix")):
			t.Errorf("prefix %q: %v", c.prefix, err)
		}
	}
}
