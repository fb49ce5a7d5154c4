// Command hivebeat is the single binary of the heartbeat fabric: server, queen, hive,
// worker, and the commands that query them. Run "hivebeat --help".
package main

import (
	"context"
	"os"

	"github.com/beatfabric/hivebeat/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Standard()))
}
