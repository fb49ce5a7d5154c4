package api_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat/queen/api"
)

func TestSelector(t *testing.T) {
	labels := map[string]string{"zone": "eu", "tier": "prod", "gpu": "h100", "blank": ""}
	get := func(k string) (string, bool) { v, ok := labels[k]; return v, ok }
	for s, want := range map[string]bool{
		"": true, "  ": true,
		"zone=eu": true, "zone==eu": true, " zone = eu ": true, "zone=us": false, "none=eu": false, "none=": false, "blank=": true,
		"zone!=us": true, "zone!=eu": false, "none!=eu": true,
		"gpu in (a100, h100)": true, "gpu in (a100)": false, "none in (a)": false, "blank in ()": true, "blank in (a,)": true,
		"gpu notin (a100)": true, "gpu notin (a100,h100)": false, "none notin (a)": true,
		"zone": true, "none": false, "!none": true, "!zone": false, "! none": true, "blank": true,
		"zone=eu,tier!=dev,gpu in (h100,b200),x notin (c),tier,!key": true,
		"zone=eu,tier=dev": false,
		"zone=eu.west/1":   false,
	} {
		sel, err := api.ParseSelector(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if got := sel.Fits(get); got != want {
			t.Errorf("%q fits: %v", s, got)
		}
	}
	for _, s := range []string{",", "a,", "=a", "a b", "a in b", "a in (b", "a in (b c)", "!", "!=a", "a==b==c", "a=b c", "(a)", "a in", "a notin x", "!a=b"} {
		if _, err := api.ParseSelector(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

// The requirements of a selector have one form, however it was written.
func TestRequirements(t *testing.T) {
	sel, err := api.ParseSelector("a=1,b==2,c!=3,d in (y,x,y),e notin (z),f,!g,h=")
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Requirement{
		{Key: "a", Op: api.OpIn, Values: []string{"1"}},
		{Key: "b", Op: api.OpIn, Values: []string{"2"}},
		{Key: "c", Op: api.OpNotIn, Values: []string{"3"}},
		{Key: "d", Op: api.OpIn, Values: []string{"x", "y"}},
		{Key: "e", Op: api.OpNotIn, Values: []string{"z"}},
		{Key: "f", Op: api.OpHas},
		{Key: "g", Op: api.OpHasNot},
		{Key: "h", Op: api.OpIn, Values: []string{""}},
	}
	if diff := cmp.Diff(want, sel.Requirements()); diff != "" {
		t.Error(diff)
	}
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"a=b,c!=d", "a in (b,c)", "!a", "a notin ()", "a,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if sel, err := api.ParseSelector(s); err == nil {
			sel.Fits(func(string) (string, bool) { return "", false })
		}
	})
}
