//go:build !linux

package discover

import "context"

type scanner struct{}

func newScanner(string) (*scanner, error) { return nil, ErrSystem }

// Scan returns an error: there is no /proc.
func (*scanner) Scan(context.Context) (*Scan, error) { return nil, ErrSystem }
