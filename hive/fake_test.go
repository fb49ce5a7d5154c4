package hive

import (
	"time"

	"github.com/beatfabric/hivebeat/internal/sample"
)

const (
	thisHive = sample.Hive
	second   = time.Second
	every    = sample.Every
)

// t0 is the start of time in tests that set the time themselves.
var t0 = time.Now()

// fake is a worker as seen on the wire.
type fake = sample.Worker

var newFake = sample.NewWorker
