package fleet

import "github.com/beatfabric/hivebeat/internal/wire"

// memoBytes bounds what all memos hold on to: the last snapshot of each hive.
const memoBytes = 256 << 20

// memo is a hive's last snapshot, whose unchanged rows are recognised in the next
// one by their bytes. It is good as long as the hive's records are those of that
// snapshot.
type memo struct {
	wire.SnapshotMemo
	gen  uint64 // of the assembly that took the snapshot over; 0 = there is none
	size int
}

// Parse reads a message, by the memo of its hive where that is good. The view is
// good until the next parse.
func (v *View) Parse(b []byte) (*wire.SnapshotView, error) {
	s := &v.page
	if h, ok := v.hives[string(wire.PeekHive(b))]; ok && h.memo.gen != 0 && h.memo.gen == h.asm.gen {
		if err := h.memo.Parse(b, s); err != nil {
			return nil, err
		}
		if string(s.Hive) == h.id {
			return s, nil
		}
	}
	if err := wire.ParseSnapshot(b, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Keep remembers a message that was parsed into s and taken over by apply. It
// holds on to b.
func (v *View) Keep(b []byte, s *wire.SnapshotView) {
	h := v.hives[string(s.Hive)]
	if h == nil {
		return
	}
	v.memos -= h.memo.size
	if s.Pages > 1 || v.memos+len(b) > memoBytes {
		h.memo = memo{}
		return
	}
	v.memos += len(b)
	h.memo.Keep(b, s)
	h.memo.gen, h.memo.size = h.asm.gen, len(b)
}
