//go:build e2e

// Command engine is a worker for tests, as an engine is one in life: a process that beats,
// and a child that holds the GPU's memory. The child outlives it if it is killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/worker"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run() error {
	var cfg worker.Config
	flag.DurationVar(&cfg.Every, "every", time.Second, "promise")
	flag.StringVar(&cfg.Hive, "hive", "", "hive")
	flag.StringVar(&cfg.ID, "id", "", "id")
	flag.StringVar(&cfg.Model, "model", "", "model")
	flag.Uint64Var(&cfg.Slots, "slots", 4, "slots")
	flag.Uint64Var(&cfg.Need, "need", 0, "bytes that it will hold once it has loaded; its state is loading then")
	gpus := flag.String("gpus", "", "UUIDs, with commas")
	child := flag.String("child", "", "file for the pid of the child")
	hold := flag.Bool("hold", false, "be the child")
	flag.Parse()
	if cfg.Need > 0 {
		cfg.State = hivebeat.Loading
	}
	if *hold {
		time.Sleep(time.Hour)
	}
	if *gpus != "" {
		cfg.GPUs = strings.Split(*gpus, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if *child != "" {
		c := exec.Command(os.Args[0], "-hold")
		if err := c.Start(); err != nil {
			return err
		}
		if err := os.WriteFile(*child, []byte(strconv.Itoa(c.Process.Pid)), 0o600); err != nil {
			return err
		}
		defer func() { _ = c.Process.Kill() }()
	}
	nc, err := bus.Connect(ctx, bus.Config{URL: os.Getenv("HIVEBEAT_NATS"), Name: "engine " + cfg.ID})
	if err != nil {
		return err
	}
	defer nc.Close()
	w, err := worker.New(nc, cfg)
	if err != nil {
		return err
	}
	return w.Run(ctx)
}
