package query

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// rank is the position of a hive or worker in a sorted list: a number or a text, followed
// by its ids. It means the same to every queen.
type rank struct {
	num          int64
	text         string
	hive, worker string
}

// order is the order of a list.
type order struct {
	key  string
	down bool
}

func orderOf(sort string) order {
	key, down := strings.CutPrefix(sort, "-")
	return order{key, down}
}

func (o order) compare(a, b *rank) int {
	if o.key == "id" {
		c := cmp.Or(strings.Compare(a.hive, b.hive), strings.Compare(a.worker, b.worker))
		if o.down {
			return -c
		}
		return c
	}
	if c := o.value(a, b); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.hive, b.hive), strings.Compare(a.worker, b.worker))
}

// value compares without the ids.
func (o order) value(a, b *rank) int {
	c := cmp.Compare(a.num, b.num)
	if c == 0 {
		c = strings.Compare(a.text, b.text)
	}
	if o.down {
		return -c
	}
	return c
}

// lives is the order of verdicts, from good to bad.
var lives = []hivebeat.Live{hivebeat.Alive, hivebeat.Late, hivebeat.Unverified, hivebeat.Lost, hivebeat.Left}

func liveRank(l hivebeat.Live) int64 {
	if i := slices.Index(lives, l); i >= 0 {
		return int64(i)
	}
	return 1 // an unknown word counts as late
}

// states lists the states in the order of a worker's life. Others sort after them.
var states = hivebeat.States()

func stateRank(s hivebeat.State) (int64, string) {
	if i := slices.Index(states, s); i >= 0 {
		return int64(i), ""
	}
	return int64(len(states)), string(s)
}

// mixValue sets r to the value of the sort key if the mix contains it, and reports whether
// it does.
func (o order) mixValue(m index.Mix, r *rank) bool {
	switch o.key {
	case "live":
		r.num = liveRank(m.Live)
	case "state":
		r.num, r.text = stateRank(m.State)
	case "model":
		r.text = m.Model
	default:
		return false
	}
	return true
}

// worker returns the rank of w. Ages sort by when w was heard, which does not change with
// time: the youngest comes first.
func (o order) worker(w *index.Worker) rank {
	rec := w.Record()
	r := rank{hive: w.Hive().ID(), worker: rec.Worker}
	switch o.key {
	case "age":
		r.num = -(w.Received().UnixMilli() - int64(min(rec.Age, maxAge)))
	case "busy":
		r.num = int64(rec.Busy)
	case "queue":
		r.num = int64(rec.Queue)
	case "vram":
		r.num = int64(rec.VRAM)
	case "done":
		r.num = int64(rec.Done)
	default:
		o.mixValue(w.Mix(), &r)
	}
	return r
}

const maxAge = hivebeat.Millis(100 * 365 * 24 * time.Hour / time.Millisecond)

func (o order) hive(h *index.Hive) rank {
	r := rank{hive: h.ID()}
	switch o.key {
	case "live":
		r.num = liveRank(h.Live())
	case "age":
		r.num = -h.Received().UnixMilli()
	case "workers":
		r.num = int64(h.Size())
	case "cpu":
		r.num = int64(h.Head().Host.CPU * 1000)
	case "vram_free":
		if h.Fresh() {
			r.num = int64(h.FreeMemory())
		}
	}
	return r
}

// cursor is a position in a list: after this rank, and after Skip more items that fit.
type cursor struct {
	Sort   string `json:"s"`
	Num    int64  `json:"n,omitempty"`
	Text   string `json:"t,omitempty"`
	Hive   string `json:"h,omitempty"`
	Worker string `json:"w,omitempty"`
	Skip   int    `json:"k,omitempty"`
}

func (c cursor) rank() rank { return rank{c.Num, c.Text, c.Hive, c.Worker} }

func cursorAt(sort string, r rank, skip int) cursor {
	return cursor{sort, r.num, r.text, r.hive, r.worker, skip}
}

// String encodes the cursor: as ids if the list is by id and nothing is skipped, and opaque
// otherwise.
func (c cursor) String() string {
	if c.Sort == "id" && c.Skip == 0 {
		if c.Worker == "" {
			return c.Hive
		}
		return c.Hive + "/" + c.Worker
	}
	b, _ := json.Marshal(c) // plain fields: this cannot fail
	return "~" + base64.RawURLEncoding.EncodeToString(b)
}

var errCursor = errors.New("after must be the next of the answer before, with the same sort")

// parseCursor reads the after of a request. Without one, the cursor is at the start and
// skips offset items.
func parseCursor(r *api.Request) (cursor, error) {
	if r.After == "" {
		return cursor{Sort: sortOf(r), Skip: r.Offset}, nil
	}
	c := cursor{Sort: "id"}
	if opaque, ok := strings.CutPrefix(r.After, "~"); ok {
		b, err := base64.RawURLEncoding.DecodeString(opaque)
		if err != nil || json.Unmarshal(b, &c) != nil {
			return cursor{}, errCursor
		}
	} else {
		var both bool
		c.Hive, c.Worker, both = strings.Cut(r.After, "/")
		if !hivebeat.ValidID(c.Hive) || both && !hivebeat.ValidID(c.Worker) {
			return cursor{}, errCursor
		}
	}
	if c.Sort != sortOf(r) || c.Hive != "" && !hivebeat.ValidID(c.Hive) || c.Worker != "" && !hivebeat.ValidID(c.Worker) ||
		c.Skip < 0 || c.Skip > maxOffset || c.Sort != "id" && c.Skip > maxSortedOffset {
		return cursor{}, errCursor
	}
	return c, nil
}
