package hivebeat

import "fmt"

// ValidID reports whether id is 1 to 64 characters of A-Z a-z 0-9 _ -. Only such an id
// may become a subject token or a bucket key.
func ValidID[T ~string | ~[]byte](id T) bool {
	if len(id) == 0 || len(id) > MaxID {
		return false
	}
	for i := range len(id) {
		if !idByte[id[i]] {
			return false
		}
	}
	return true
}

// CheckID returns nil for a valid id. Otherwise it returns an error that wraps ErrID,
// says what the id is for and quotes it.
func CheckID(what, id string) error {
	switch {
	case ValidID(id):
		return nil
	case id == "":
		return fmt.Errorf("%w: %s is empty", ErrID, what)
	case len(id) > MaxID:
		return fmt.Errorf("%w: %s %.80q has %d bytes, at most %d are allowed", ErrID, what, id, len(id), MaxID)
	}
	return fmt.Errorf("%w: %s %q may hold only A-Z a-z 0-9 _ -", ErrID, what, id)
}

var idByte = func() (ok [256]bool) {
	for c := range ok {
		ok[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
	}
	return ok
}()
