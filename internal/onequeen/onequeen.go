// Package onequeen makes several answers that are shown together answers of one
// queen, where that can be, and has the words for where it can not.
//
// NATS gives each question to one of all queens, and two of them need not know the
// same: one that has just begun counts less than one that lists.
package onequeen

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Ask asks a queen one thing. The answer is nil if none came, and set beside an error
// where the queen refused.
type Ask = func(ctx context.Context, verb string, req api.Request) (*api.Answer, error)

const (
	// tries is how often one thing is asked at most. NATS chooses by chance: of two
	// queens the other one answers all of them once in 65,000 times.
	tries = 16
	// within is how long one thing is asked again: the queen may be gone, or stopped.
	within = 2 * time.Second
)

// Follow returns an Ask which asks again, up to 15 times in 2 s, until the queen
// answers that gave the answer before. Where she does not, the last answer is
// returned, and whoever gave that is followed from then on: the caller is to look at
// Status.Queen. It is for questions that change nothing, and safe for concurrent use.
func Follow(ask Ask) Ask {
	var mu sync.Mutex
	followed := ""
	return func(ctx context.Context, verb string, req api.Request) (*api.Answer, error) {
		mu.Lock()
		queen := followed
		mu.Unlock()
		ans, err := ask(ctx, verb, req)
		if differs(ans, queen) {
			ans, err = again(ctx, ask, verb, req, queen, ans, err)
		}
		if ans != nil {
			mu.Lock()
			followed = ans.Status.Queen
			mu.Unlock()
		}
		return ans, err
	}
}

func again(ctx context.Context, ask Ask, verb string, req api.Request, queen string, ans *api.Answer, err error) (*api.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for range tries - 1 {
		next, failed := ask(ctx, verb, req)
		if next == nil { // nobody answers any more: what is here is an answer
			break
		}
		if ans, err = next, failed; !differs(ans, queen) {
			break
		}
	}
	return ans, err
}

func differs(ans *api.Answer, queen string) bool {
	return ans != nil && queen != "" && ans.Status.Queen != queen
}

// Reasons returns a with those of b that are not in it, and changes neither.
func Reasons(a, b []string) []string {
	a = slices.Clone(a)
	for _, why := range b {
		if !slices.Contains(a, why) {
			a = append(a, why)
		}
	}
	return a
}

// Queens are those whose answers are shown together, each once.
type Queens []string

// Add adds who gave an answer.
func (q *Queens) Add(id string) {
	if id != "" && !slices.Contains(*q, id) {
		*q = append(*q, id)
	}
}

// Unsure returns unsure, and behind it the reason why the answers may not agree, where
// several queens gave them. It does not change unsure.
func (q Queens) Unsure(unsure []string) []string {
	var why string
	switch n := len(q); n {
	case 0, 1:
		return unsure
	case 2:
		why = "two queens answered, " + q[0] + " and " + q[1]
	default:
		why = fmt.Sprintf("%d queens answered, %s and %s", n, strings.Join(q[:n-1], ", "), q[n-1])
	}
	return append(slices.Clip(unsure), why)
}
