package shard_test

import (
	"flag"
	"os"
	"testing"
)

// A property here is a conversation of some hundred queries with a server: thirty are
// checked unless the command line asks for more.
func TestMain(m *testing.M) {
	checks := flag.Lookup("rapid.checks")
	checks.DefValue = "30"
	if err := checks.Value.Set(checks.DefValue); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(m.Run())
}
