package wire

// PeekHive returns the hive's id of a snapshot that begins as this project's do,
// and nil for any other: it tells whose memo may fit. The snapshot may still be
// refused.
func PeekHive(b []byte) []byte {
	i := 0
	switch {
	case len(b) > 0 && b[0]&0xf0 == 0x80:
		i = 1
	case len(b) > 2 && b[0] == 0xde:
		i = 3
	default:
		return nil
	}
	const head = "\xa1v\x01\xa4hive"
	if len(b)-i < len(head)+1 || string(b[i:i+len(head)]) != head {
		return nil
	}
	id, _ := peekStr(b, i+len(head))
	return id
}
