package top

import (
	"context"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
)

// pagesAtMost bounds how many pages a question follows: a queen ends a page early
// where it is too long for a message, or where little fits of what she looked at.
const pagesAtMost = 8

// Ask asks a queen one thing. The answer is nil if none came, and set beside an error
// where the queen refused.
type Ask = func(ctx context.Context, verb string, req api.Request) (*api.Answer, error)

// follow asks for a window of rows, page after page until it is full.
func follow(ctx context.Context, ask Ask, verb string, req api.Request) (*api.Answer, error) {
	whole, err := ask(ctx, verb, req)
	if err != nil || verb != api.VerbHives && verb != api.VerbWorkers {
		return whole, err
	}
	var sure show.Certainty
	sure.Add(whole.Status)
	for range pagesAtMost - 1 {
		left := req.Limit - len(whole.Hives) - len(whole.Workers)
		if whole.Next == "" || left <= 0 {
			break
		}
		more := req
		more.After, more.Offset, more.Limit = whole.Next, 0, left
		page, err := ask(ctx, verb, more)
		if err != nil {
			return page, err
		}
		whole.Hives, whole.Workers = append(whole.Hives, page.Hives...), append(whole.Workers, page.Workers...)
		whole.Next = page.Next
		sure.Add(page.Status)
	}
	whole.Status = *sure.Sum()
	return whole, nil
}
