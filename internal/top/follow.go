package top

import (
	"context"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
)

// pagesAtMost bounds how many pages a question follows. A queen ends a page early if it is
// too long for a message, or if few of the rows it looked at match.
const pagesAtMost = 8

// Ask sends one request to a queen. The answer is nil if none came. If the queen rejected
// the request, both the answer and the error are set.
type Ask = func(ctx context.Context, verb string, req api.Request) (*api.Answer, error)

// follow asks for a window of rows, page by page, until it is full.
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
