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

// t0 is when time begins in a test that makes its own.
var t0 = time.Now()

// fake is a worker as the wire shows it.
type fake = sample.Worker

var newFake = sample.NewWorker
