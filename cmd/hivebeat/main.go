// Command hivebeat is the heartbeat fabric's one binary: server, queen, hive,
// worker, and the commands that ask them. Run "hivebeat --help".
package main

import (
	"context"
	"os"

	"github.com/beatfabric/hivebeat/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Standard()))
}
