package onequeen

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/beatfabric/hivebeat/queen/api"
)

// turns answers with the queens of a list in turn, the last of them for ever. "" is
// that nobody does, and "!" before the id that she refuses.
type turns struct {
	queens []string
	asked  int
}

var (
	errNobody  = errors.New("nobody")
	errRefused = errors.New("refused")
)

func (s *turns) ask(context.Context, string, api.Request) (*api.Answer, error) {
	id := s.queens[min(s.asked, len(s.queens)-1)]
	s.asked++
	switch {
	case id == "":
		return nil, errNobody
	case id[0] == '!':
		return &api.Answer{Status: api.Status{Queen: id[1:]}}, errRefused
	}
	return &api.Answer{Status: api.Status{Queen: id}}, nil
}

func TestFollow(t *testing.T) {
	for name, tt := range map[string]struct {
		queens []string
		second string // who gave the second answer
		err    error
		asked  int // for both
	}{
		"the same at once":               {[]string{"a", "a"}, "a", nil, 2},
		"the same, later":                {[]string{"a", "b", "c", "a"}, "a", nil, 4},
		"she is gone":                    {[]string{"a", "b"}, "b", nil, 1 + tries},
		"the other refuses, she does":    {[]string{"a", "!b", "!a"}, "a", errRefused, 3},
		"the other refuses, she answers": {[]string{"a", "!b", "a"}, "a", nil, 3},
		"nobody is there any more":       {[]string{"a", "b", ""}, "b", nil, 3},
		"nobody was there":               {[]string{"", "b"}, "b", nil, 2},
		"nobody is there at once":        {[]string{"a", ""}, "", errNobody, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := &turns{queens: tt.queens}
			ask := Follow(s.ask)
			_, _ = ask(t.Context(), api.VerbHives, api.Request{})
			ans, err := ask(t.Context(), api.VerbSummary, api.Request{})
			queen := ""
			if ans != nil {
				queen = ans.Status.Queen
			}
			if queen != tt.second || !errors.Is(err, tt.err) || s.asked != tt.asked {
				t.Errorf("answered by %q, %v, asked %d times", queen, err, s.asked)
			}
		})
	}
}

// Whoever answers in her place is followed from then on: all that follows is not asked
// in vain again.
func TestFollowGoesOn(t *testing.T) {
	s := &turns{queens: []string{"a", "b"}}
	ask := Follow(s.ask)
	for range 4 {
		_, _ = ask(t.Context(), api.VerbHives, api.Request{})
	}
	if want := 1 + tries + 2; s.asked != want {
		t.Errorf("asked %d times, not %d", s.asked, want)
	}
}

func TestQueens(t *testing.T) {
	var q Queens
	base := append(make([]string, 0, 4), "x")
	for _, step := range []struct{ id, why string }{
		{"", ""},
		{"a", ""},
		{"a", ""},
		{"b", "two queens answered, a and b"},
		{"a", "two queens answered, a and b"},
		{"c", "3 queens answered, a, b and c"},
	} {
		q.Add(step.id)
		want := []string{"x"}
		if step.why != "" {
			want = append(want, step.why)
		}
		if got := q.Unsure(base); !slices.Equal(got, want) {
			t.Errorf("after %q: %q", step.id, got)
		}
	}
	if base[:2][1] != "" {
		t.Error("the list of the answer was written to")
	}
}
