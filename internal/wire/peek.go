package wire

// A message from this project begins with its identity: v 1, the hive, and in a beat
// the worker. Peeking there costs a tenth of a parse, and finds the memo to parse with.
// The message may still be refused.

// PeekHive returns the hive id of a message that begins like those of this project, and
// nil for any other.
func PeekHive(b []byte) []byte {
	id, _ := peekHive(b)
	return id
}

// PeekWorker returns the worker id of a beat that begins like those of this project,
// and nil for any other.
func PeekWorker(b []byte) []byte {
	_, i := peekHive(b)
	const key = "\xa6worker"
	if i < 0 || len(b)-i < len(key) || string(b[i:i+len(key)]) != key {
		return nil
	}
	id, _ := peekStr(b, i+len(key))
	return id
}

// peekHive returns the hive id and the offset where it ends, or a negative offset.
func peekHive(b []byte) ([]byte, int) {
	i := 0
	switch {
	case len(b) > 0 && b[0]&0xf0 == 0x80:
		i = 1
	case len(b) > 2 && b[0] == 0xde:
		i = 3
	default:
		return nil, fault
	}
	const head = "\xa1v\x01\xa4hive"
	if len(b)-i < len(head) || string(b[i:i+len(head)]) != head {
		return nil, fault
	}
	return peekStr(b, i+len(head))
}

// peekStr returns the string at i in bytes that were not scanned, and the offset where
// it ends, or a negative offset.
func peekStr(b []byte, i int) ([]byte, int) {
	if i >= len(b) || firsts[b[i]].form != formStr || len(b)-i < 1+int(firsts[b[i]].size) {
		return nil, fault
	}
	d := firsts[b[i]]
	n := int(d.n)
	i++
	if d.size > 0 {
		n, i = length(b[i:], d.size), i+int(d.size)
	}
	if n > len(b)-i {
		return nil, fault
	}
	return b[i : i+n], i + n
}
