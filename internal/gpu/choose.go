package gpu

import (
	"context"
	"errors"
)

// First returns a Reader called name that reads with the first of list that finds
// something to read: that is, whose error is not ErrNone.
func First(name string, list ...Reader) Reader { return first{name, list} }

type first struct {
	name string
	list []Reader
}

func (f first) Name() string { return f.name }

func (f first) Read(ctx context.Context) (Reading, error) {
	for _, r := range f.list {
		if got, err := r.Read(ctx); !errors.Is(err, ErrNone) {
			return got, err
		}
	}
	return Reading{}, ErrNone
}

// Watch watches with the first of list that can, until ctx ends.
func (f first) Watch(ctx context.Context, report func(Incident)) error {
	err := ErrNone
	for _, r := range f.list {
		if w, ok := r.(Watcher); ok {
			if err = w.Watch(ctx, report); !errors.Is(err, ErrNone) {
				break
			}
		}
	}
	return err
}
