package hive

import (
	"time"

	"github.com/beatfabric/hivebeat/internal/sampletest"
)

const (
	thisHive = sampletest.Hive
	second   = time.Second
	every    = sampletest.Every
)

// t0 is the start of time in tests that set the time themselves.
var t0 = time.Now()

// fake is a worker as seen on the wire.
type fake = sampletest.Worker

var newFake = sampletest.NewWorker
