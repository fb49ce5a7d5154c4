// scan runs many seeds and prints each that fails.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/beatfabric/hivebeat/internal/sim"
)

func main() {
	first := flag.Uint64("first", 1, "")
	n := flag.Int("n", 1000, "")
	flag.Parse()
	began := time.Now()
	const block = 500
	total := 0
	for at := 0; at < *n; at += block {
		s := sim.RunSeeds(*first+uint64(at), min(block, *n-at), 0, 1<<30, nil)
		total += s.Runs
		for _, f := range s.Failed {
			fmt.Printf("FAIL %d %s\n", f.Plan.Seed, f.Broken)
		}
		fmt.Fprintf(os.Stderr, "%d runs, next %d, %v\n", total, *first+uint64(at)+block, time.Since(began).Round(time.Second))
	}
}
