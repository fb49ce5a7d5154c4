package top

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/beatfabric/hivebeat/queen/api"
)

// A page that ends early is continued until the window is full.
func TestFollow(t *testing.T) {
	var asked []api.Request
	fail := -1
	ask := func(_ context.Context, _ string, r api.Request) (*api.Answer, error) {
		asked = append(asked, r)
		if len(asked) == fail {
			return nil, errors.New("gone")
		}
		a := &api.Answer{Next: fmt.Sprint("c", len(asked)), Status: api.Status{Warm: true}}
		if len(asked) == 2 {
			a.Status.Unsure = []string{"why"}
			return a, nil // none of the rows that the queen looked at fitted
		}
		for i := range min(3, r.Limit) {
			a.Hives = append(a.Hives, api.HiveInfo{Hive: fmt.Sprint(len(asked), "-", i)})
		}
		return a, nil
	}
	a, err := follow(t.Context(), ask, api.VerbHives, api.Request{Offset: 7, Limit: 5})
	if err != nil || len(a.Hives) != 5 || a.Next != "c3" || len(a.Status.Unsure) != 1 || len(asked) != 3 {
		t.Errorf("%+v, %v, asked %+v", a, err, asked)
	}
	if asked[1].After != "c1" || asked[1].Offset != 0 || asked[1].Limit != 2 || asked[2].After != "c2" {
		t.Errorf("asked %+v", asked)
	}
	asked = nil
	if a, _ = follow(t.Context(), ask, api.VerbHives, api.Request{Limit: 1000}); len(asked) != pagesAtMost || a.Next == "" {
		t.Errorf("%d questions", len(asked))
	}
	asked, fail = nil, 2
	if a, err = follow(t.Context(), ask, api.VerbHives, api.Request{Limit: 1000}); a != nil || err == nil {
		t.Errorf("%+v, %v", a, err)
	}
}

// Rows and summary of two queens are reported as such.
func TestRowsOfTwoQueens(t *testing.T) {
	m := &Model{status: map[slot]api.Status{slotSummary: {Queen: "q1", Warm: true}, slotHives: {Queen: "q1", Warm: true}}}
	if st := m.sure(); len(st.Unsure) != 0 || !st.Warm {
		t.Errorf("of one: %+v", st)
	}
	m.status[slotHives] = api.Status{Queen: "q2", Warm: true}
	if st := m.sure(); !slices.Equal(st.Unsure, []string{"two queens answered, q2 and q1"}) {
		t.Errorf("summary and rows: %v", st.Unsure)
	}
}
