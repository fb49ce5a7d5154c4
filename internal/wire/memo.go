package wire

import (
	"bytes"
	"slices"

	"github.com/beatfabric/hivebeat"
)

// Most messages repeat the previous one except for a few numbers, and this project
// sends those numbers last (docs/PROTOCOL.md, "Order of keys"). A memo keeps the bytes
// before them, the stable part. If the next message begins with the same bytes, that
// part was already scanned, checked and applied, and only the numbers after it are
// read. A message in another order costs as much as without a memo, and means the same:
// the fuzz tests check that both paths agree.

// A bit for each key that may follow the stable part.
const (
	seqBit = 1 << iota
	sentBit
	vramBit
	busyBit
	queueBit
	doneBit
	tokensBit
	kvBit
	probedBit
	bootBit // from here on: only in a beat
	ageBit  // from here on: only in a record
	sinceBit
	closedBit
	restartsBit
	loopingBit
	rateBit
	tpsBit
	procBit
)

// volatile returns the bit of a key that may follow the stable part, and 0 for any other
// key.
func volatile(key []byte) (bit uint32) {
	switch string(key) {
	case "seq":
		return seqBit
	case "sent":
		return sentBit
	case "vram":
		return vramBit
	case "busy":
		return busyBit
	case "queue":
		return queueBit
	case "done":
		return doneBit
	case "tokens":
		return tokensBit
	case "kv":
		return kvBit
	case "probed":
		return probedBit
	case "boot":
		return bootBit
	case "age":
		return ageBit
	case "since":
		return sinceBit
	case "closed":
		return closedBit
	case "restarts":
		return restartsBit
	case "looping":
		return loopingBit
	case "rate":
		return rateBit
	case "tps":
		return tpsBit
	case "os":
		return procBit
	}
	return 0
}

// mark describes the stable part of a map that was parsed without a fault.
type mark struct {
	at     uint32 // offset of the map in the message
	stable uint32 // length up to the first volatile key; 0: there is no stable part
	worker uint32 // offset of the worker's id, from at
	size   uint8  // length of the id
	left   uint8  // pairs after the stable part
}

// markOf finds the stable part of the map at b[at:], which was parsed before.
func markOf(b []byte, at int) mark {
	c := cursor{b: b[at:]}
	m := mark{at: uint32(at)}
	here := func() uint32 { return uint32(len(b) - at - len(c.b)) }
	for left := c.pairs(""); left > 0; left-- {
		before, key := here(), []byte(nil)
		switch key = c.key(); {
		case volatile(key) == 0 && m.stable != 0: // a stable key after a volatile one
			return mark{at: uint32(at)}
		case volatile(key) != 0 && m.stable == 0:
			m.stable, m.left = before, uint8(left) // no key appears twice, so few pairs are left
		case string(key) == "worker":
			id, _ := takeStr(c.b)
			m.worker, m.size = here()+1+uint32(firsts[c.b[0]].size), uint8(len(id))
		}
		c.skip()
	}
	return m
}

// BeatMemo remembers the stable part of one worker's last beat. The zero value
// remembers nothing.
type BeatMemo struct {
	stable []byte
	left   int
}

// Parse reads b into v if b repeats the remembered part and is valid. Otherwise it
// returns false, and ParseBeat reports why. All facts outside v are as in the
// remembered beat.
func (m *BeatMemo) Parse(b []byte, v *Volatile) bool {
	n := len(m.stable)
	if n == 0 || len(b) > hivebeat.MaxBeat || !bytes.HasPrefix(b, m.stable) {
		return false
	}
	t := tail{b: b, i: n}
	*v = Volatile{}
	return t.read(m.left, v, nil) && t.i == len(b)
}

// Keep remembers b, which ParseBeat accepted and whose facts were applied.
func (m *BeatMemo) Keep(b []byte) {
	at := markOf(b, 0)
	m.stable, m.left = append(m.stable[:0], b[:at.stable]...), int(at.left)
}

// Forget empties m, because the remembered beat is not the one applied last.
func (m *BeatMemo) Forget() { m.stable = m.stable[:0] }

// SnapshotMemo remembers the stable parts of the rows of one hive's last snapshot, or
// of one page. The zero value remembers nothing.
type SnapshotMemo struct {
	last []byte
	rows []mark
}

// Keep remembers b, which was parsed into v and applied. It keeps a reference to b,
// which must not be written to from then on.
func (m *SnapshotMemo) Keep(b []byte, v *SnapshotView) {
	m.last = b
	m.rows = slices.Grow(m.rows[:0], len(v.Workers))[:len(v.Workers)]
	for i := range v.Workers {
		if r := &v.Workers[i]; r.Same {
			m.rows[i] = r.mark
		} else {
			m.rows[i] = markOf(b, int(r.mark.at))
		}
	}
}

// row reads row i at b[at:] into v if it repeats the stable part of the previous row i,
// and returns its end. Otherwise it returns a negative offset.
func (m *SnapshotMemo) row(i int, b []byte, at int, v *RecordView) (end int) {
	if i >= len(m.rows) || m.rows[i].stable == 0 {
		return fault
	}
	was := m.rows[i]
	if !bytes.HasPrefix(b[at:], m.last[was.at:was.at+was.stable]) {
		return fault
	}
	t := tail{b: b, i: at + int(was.stable)}
	*v = RecordView{Tr: v.Tr[:0], Same: true}
	if !t.read(int(was.left), &v.Volatile, v) {
		return fault
	}
	id := at + int(was.worker)
	v.Worker = b[id : id+int(was.size)]
	was.at = uint32(at)
	v.mark = was
	return t.i
}

// tail reads volatile keys from bytes that were not scanned. It ends at anything
// unexpected, and the ordinary path takes over.
type tail struct {
	b []byte
	i int
}

func (t *tail) read(left int, v *Volatile, r *RecordView) bool {
	var seen uint32
	for range left {
		key, i := peekStr(t.b, t.i)
		if i < 0 {
			return false
		}
		bit := volatile(key)
		if bit == 0 || seen&bit != 0 || r == nil && bit >= ageBit || r != nil && bit == bootBit {
			return false
		}
		seen |= bit
		t.i = i
		var ok bool
		switch bit {
		case seqBit:
			v.Seq, ok = t.uint()
		case sentBit:
			v.Sent, ok = t.integer()
		case vramBit:
			v.VRAM, ok = t.uint()
		case busyBit:
			v.Busy, ok = t.uint()
		case queueBit:
			v.Queue, ok = t.uint()
		case doneBit:
			v.Done, ok = t.uint()
		case tokensBit:
			v.Tokens, ok = t.uint()
		case kvBit:
			v.KV, ok = t.float()
			ok = ok && v.KV >= 0 && v.KV <= 1
			v.HasKV = true
		case probedBit:
			v.Probed, ok = t.uint()
		case bootBit:
			v.Boot, ok = t.uint()
		case ageBit:
			r.Age, ok = t.uint()
		case sinceBit:
			r.Since, ok = t.uint()
		case closedBit:
			r.Closed, ok = t.bool()
		case restartsBit:
			r.Restarts, ok = t.uint()
		case loopingBit:
			r.Looping, ok = t.bool()
		case rateBit:
			r.Rate, ok = t.float()
		case tpsBit:
			r.TPS, ok = t.float()
		default:
			ok = t.proc(&r.Proc)
		}
		if !ok {
			return false
		}
	}
	return seen&seqBit != 0 && v.Seq != 0
}

func (t *tail) proc(p *hivebeat.Proc) bool {
	end := (&scanner{b: t.b}).value(t.i, 2)
	if end < 0 {
		return false
	}
	c := cursor{b: t.b[t.i:end]}
	c.proc(p)
	t.i = end
	return c.err == nil
}

// float reads a float, or an integer as a float.
func (t *tail) float() (v float64, ok bool) {
	end := (&scanner{b: t.b}).value(t.i, 2)
	if end < 0 {
		return 0, false
	}
	c := cursor{b: t.b[t.i:end]}
	v = c.float("")
	t.i = end
	return v, c.err == nil
}

func (t *tail) bool() (v, ok bool) {
	if t.i >= len(t.b) {
		return false, false
	}
	c := cursor{b: t.b[t.i:]}
	v = c.bool("")
	t.i = len(t.b) - len(c.b)
	return v, c.err == nil
}

func (t *tail) uint() (uint64, bool) {
	v, ok := t.integer()
	return uint64(v), ok && v >= 0
}

// integer reads an integer within the limits of the wire.
func (t *tail) integer() (int64, bool) {
	v, size := integer(t.b[t.i:])
	t.i += size
	return v, size > 0 && v <= hivebeat.MaxInt && v >= -hivebeat.MaxInt
}
