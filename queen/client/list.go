package client

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// pageSize is the default PageSize. It bounds the memory that a long list takes, here
// and in a message.
const pageSize = 500

// Query selects and sorts hives or workers. The zero Query is the whole
// fleet, by id.
type Query struct {
	// Hive limits the list to this hive, or to its workers. Default: none.
	Hive string
	// Filter selects rows; all of its fields must match.
	api.Filter
	// Sort is one of api.HiveSortKeys or api.WorkerSortKeys; a leading "-" reverses the
	// order. Default: "id".
	Sort string
	// After continues a list after one of its pages: it is that page's Next, and the rest
	// of the query is as before. Default: from the start.
	After string
	// Offset skips rows from the start, at most 10,000,000, or 100,000 if Sort is not "id".
	// It has no effect together with After. Default: 0.
	Offset int
	// Limit is how many rows come at most. Default: 0, which is all.
	Limit int
	// PageSize is how many rows one request asks for, 1 to 1000. Default: 500.
	PageSize int
}

func (q *Query) request() api.Request {
	return api.Request{Hive: q.Hive, Filter: q.Filter, Sort: q.Sort, After: q.After, Offset: q.Offset}
}

// EventQuery selects events. The zero EventQuery is every event that the fabric keeps.
type EventQuery struct {
	// Hive limits the list to events of this hive and its workers. Default: none.
	Hive string
	// Worker limits the list to events of this worker of Hive. Default: none.
	Worker string
	// Kinds limits the list to events of these kinds. Default: all.
	Kinds []hivebeat.Kind
	// Since is the age of the oldest event to return. Default: 0, which is no limit.
	Since time.Duration
	// After continues a list after one of its pages: it is that page's Next, and the rest
	// of the query is as before. Default: from the newest event.
	After string
	// Limit is how many events come at most. Default: 0, which is all.
	Limit int
	// PageSize is how many events one request asks for, 1 to 1000. Default: 500.
	PageSize int
}

func (q *EventQuery) request() api.Request {
	return api.Request{Hive: q.Hive, Worker: q.Worker, Kinds: q.Kinds, Since: millis(q.Since), After: q.After}
}

// Page is a part of a list: the rows of one answer.
type Page[T any] struct {
	// Rows are in order. A page may be empty without being the last.
	Rows []T
	// Total is how many rows match in all, or nil if the queen would have to look at each to
	// know. Of events it is always nil.
	Total *int
	// Next is the After of a query that continues the list. It is empty on the last page.
	Next string
	// Status says how sure the queen is of this page.
	Status api.Status
}

// Event is one event.
type Event struct {
	api.Happened
	Status api.Status `json:"status"`
}

// HeldPlace is one place of a hold. A hold of several places has as many rows.
type HeldPlace struct {
	api.Hold
	Status api.Status `json:"status"`
}

// Hives returns the hives that match q, one by one. It fetches pages while the caller
// iterates, all from one queen, as with Follow. The first error ends the sequence. The
// sequence may be iterated again, which asks again.
//
// An empty sequence has no Status. Use HivePages to know how sure the queen is that no
// hive matches.
func (c *Client) Hives(ctx context.Context, q Query) iter.Seq2[Hive, error] {
	return rows(c.HivePages(ctx, q), func(h api.HiveInfo, st api.Status) Hive { return Hive{h, st} })
}

// HivePages returns the hives that match q, page by page. There is at least one page or
// an error, and the first error ends the sequence. The page that comes with an *Error has
// only its Status.
func (c *Client) HivePages(ctx context.Context, q Query) iter.Seq2[Page[api.HiveInfo], error] {
	return pages(ctx, c, api.VerbHives, q.request(), q.Limit, q.PageSize, hivesOf)
}

// Workers returns the workers that match q, one by one, as Hives does.
func (c *Client) Workers(ctx context.Context, q Query) iter.Seq2[Worker, error] {
	return rows(c.WorkerPages(ctx, q), func(w api.WorkerInfo, st api.Status) Worker { return Worker{w, st} })
}

// WorkerPages returns the workers that match q, page by page, as HivePages does.
func (c *Client) WorkerPages(ctx context.Context, q Query) iter.Seq2[Page[api.WorkerInfo], error] {
	return pages(ctx, c, api.VerbWorkers, q.request(), q.Limit, q.PageSize, workersOf)
}

// GPU is one GPU of a hive.
type GPU struct {
	api.GPUInfo
	Status api.Status `json:"status"`
}

// GPUs returns the GPUs of the hives that match q, by hive and one by one, as Hives does.
// Sort and Offset must be zero.
func (c *Client) GPUs(ctx context.Context, q Query) iter.Seq2[GPU, error] {
	return rows(c.GPUPages(ctx, q), func(g api.GPUInfo, st api.Status) GPU { return GPU{g, st} })
}

// GPUPages returns the GPUs of the hives that match q, page by page, as HivePages does.
func (c *Client) GPUPages(ctx context.Context, q Query) iter.Seq2[Page[api.GPUInfo], error] {
	return pages(ctx, c, api.VerbGPUs, q.request(), q.Limit, q.PageSize, gpusOf)
}

// Model is one model.
type Model struct {
	api.ModelInfo
	Status api.Status `json:"status"`
}

// Models returns the models whose names match the glob, by name and one by one, as Hives
// does. An empty glob matches all.
func (c *Client) Models(ctx context.Context, glob string) iter.Seq2[Model, error] {
	return rows(c.ModelPages(ctx, glob), func(m api.ModelInfo, st api.Status) Model { return Model{m, st} })
}

// ModelPages returns the models whose names match the glob, page by page, as HivePages does.
func (c *Client) ModelPages(ctx context.Context, glob string) iter.Seq2[Page[api.ModelInfo], error] {
	return pages(ctx, c, api.VerbModels, api.Request{Filter: api.Filter{Model: glob}}, 0, 0, modelsOf)
}

// Events returns the events that match q, newest first and one by one, as Hives does.
func (c *Client) Events(ctx context.Context, q EventQuery) iter.Seq2[Event, error] {
	return rows(c.EventPages(ctx, q), func(e api.Happened, st api.Status) Event { return Event{e, st} })
}

// EventPages returns the events that match q, newest first, page by page, as HivePages
// does.
func (c *Client) EventPages(ctx context.Context, q EventQuery) iter.Seq2[Page[api.Happened], error] {
	return pages(ctx, c, api.VerbEvents, q.request(), q.Limit, q.PageSize, eventsOf)
}

// Holds returns the places that are held, of all askers, one by one, as Hives does.
func (c *Client) Holds(ctx context.Context) iter.Seq2[HeldPlace, error] {
	return rows(c.HoldPages(ctx), func(h api.Hold, st api.Status) HeldPlace { return HeldPlace{h, st} })
}

// HoldPages returns the places that are held, of all askers, page by page, as HivePages
// does.
func (c *Client) HoldPages(ctx context.Context) iter.Seq2[Page[api.Hold], error] {
	return pages(ctx, c, api.VerbHolds, api.Request{}, 0, 0, holdsOf)
}

// pages returns the pages of a list, from after r.After to its end, or until limit rows
// came, if limit is not 0. All pages come from the queen that gave the first.
func pages[T any](ctx context.Context, c *Client, verb string, r api.Request, limit, size int, of func(*api.Answer) []T) iter.Seq2[Page[T], error] {
	size = cmp.Or(size, pageSize)
	return func(yield func(Page[T], error) bool) {
		c, r, left := c, r, limit // a sequence may be iterated more than once
		if c.followed == nil {
			c = c.Follow()
		}
		for {
			if r.Limit = size; limit != 0 {
				r.Limit = min(size, left)
			}
			a, err := c.Ask(ctx, verb, r)
			if err != nil {
				var p Page[T]
				if a != nil {
					p.Status = a.Status
				}
				yield(p, err)
				return
			}
			p := Page[T]{Rows: of(a), Total: a.Total, Next: a.Next, Status: a.Status}
			left -= len(p.Rows)
			if !yield(p, nil) || p.Next == "" || limit != 0 && left <= 0 {
				return
			}
			if p.Next == r.After {
				yield(Page[T]{Status: p.Status}, fmt.Errorf("client: %s: %w: its pages do not advance past %q", verb, ErrUnreadable, p.Next))
				return
			}
			r.After, r.Offset = p.Next, 0
		}
	}
}

// rows returns the rows of all pages, each with the status of its page.
func rows[T, R any](pages iter.Seq2[Page[T], error], row func(T, api.Status) R) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for p, err := range pages {
			if err != nil {
				var none T
				yield(row(none, p.Status), err)
				return
			}
			for _, v := range p.Rows {
				if !yield(row(v, p.Status), nil) {
					return
				}
			}
		}
	}
}
