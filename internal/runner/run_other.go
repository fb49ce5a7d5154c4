//go:build !unix

package runner

import (
	"context"
	"errors"
	"os"

	"github.com/beatfabric/hivebeat/internal/life"
)

// Runner needs process groups and signals.
type Runner struct{}

// New returns an error: programs are run on Unix only.
func New(Config) (*Runner, error) {
	return nil, errors.New("a program can be run as a worker on Unix only; attach to it instead")
}

// Signals are none.
func Signals() []os.Signal { return []os.Signal{os.Interrupt} }

// Stops reports whether a signal asks the program to end for good.
func Stops(s os.Signal) bool { return s == os.Interrupt }

// Signal does nothing.
func (*Runner) Signal(os.Signal) {}

// Stop does nothing.
func (*Runner) Stop() {}

// Close does nothing.
func (*Runner) Close() {}

// Code returns 0.
func (*Runner) Code() int { return 0 }

// Waiting says nothing.
func (*Runner) Waiting() string { return "" }

// Next returns life.ErrOver.
func (*Runner) Next(context.Context) (life.Process, error) { return life.Process{}, life.ErrOver }
