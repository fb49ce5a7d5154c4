package bootid

import "testing"

func TestNamespace(t *testing.T) {
	t.Parallel()
	a, b := Namespace(), Namespace()
	if a != b {
		t.Errorf("two calls differ: %q and %q", a, b)
	}
	if len(a) > 128 {
		t.Errorf("%q has %d bytes, a beat takes 128", a, len(a))
	}
}
