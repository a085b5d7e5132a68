// Chat is a chat backend that runs on all five packages of evenkeel.
//
// The problem: a chat grows past one database. A channel with many readers melts
// the shard that holds it, one replica that is slow makes everything slow, a crash
// between a commit and its webhook loses the webhook, and one user with a script
// crowds out the rest.
//
// The idea: five patterns, one for each of these troubles. Look for "pattern:" in
// this folder: those are the lines where each is used.
//
// What you will see: go run ./examples/chat serves the API and a live page on
// http://127.0.0.1:8080, and makes its own traffic. On the page, turn a pattern
// off and watch what it was for. With -for 10s it ends by itself and prints what
// happened, and what would have happened without each pattern.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its surroundings as parameters. It returns the exit code: 0, 1
// if the service failed while it ran, 2 if it could not start.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	config, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage())
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "chat:", err)
		return 2
	}
	m := &Main{Config: config, log: slog.New(slog.NewTextHandler(stderr, nil))}
	started := time.Now()
	if err := m.Run(ctx); err != nil {
		fmt.Fprintln(stderr, "chat:", oneLine(err))
		return 2
	}
	fmt.Fprintf(stdout, "chat: listening on %s, data in %s\n", m.URL(), m.Dir())
	if config.Load > 0 {
		fmt.Fprintln(stdout, "chat: open that page to turn the patterns off and on; Ctrl-C ends")
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout, "chat: finishing what is under way; Ctrl-C again ends at once")
	case <-after(config.For):
	case err = <-m.Failed():
	}
	if err := errors.Join(err, m.Close(), m.metrics.Summarise(stdout, time.Since(started))); err != nil {
		fmt.Fprintln(stderr, "chat:", oneLine(err))
		return 1
	}
	return 0
}

// after is time.After, for which 0 means never.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Config says how to run. Its fields are the flags.
type Config struct {
	Addr    string
	Dir     string
	Shards  int
	Load    float64
	For     time.Duration
	Seed    uint64
	Webhook string
	Slow    time.Duration
	Limit   ratelimit.Limit
}

func flags(c *Config) *flag.FlagSet {
	f := flag.NewFlagSet("chat", flag.ContinueOnError)
	f.SetOutput(io.Discard) // run prints the one line that matters
	f.StringVar(&c.Addr, "addr", "127.0.0.1:8080", "address to listen on; port 0 takes a free one")
	f.StringVar(&c.Dir, "dir", "", "folder for the data, kept for the next start (default a temporary one)")
	f.IntVar(&c.Shards, "shards", 0, "shards to make in a new folder (default 4)")
	f.Float64Var(&c.Load, "load", 300, "requests per second that the built-in generator makes; 0 turns it off")
	f.DurationVar(&c.For, "for", 0, "end by itself after this long; 0 means at Ctrl-C")
	f.Uint64Var(&c.Seed, "seed", 1, "seed of the generator")
	f.StringVar(&c.Webhook, "webhook", "", "URL to deliver webhooks to (default a built-in receiver that refuses one in five)")
	f.DurationVar(&c.Slow, "slow", 100*time.Millisecond, "how much slower the slow replica answers")
	f.TextVar(&c.Limit, "limit", ratelimit.Per(5, time.Second).Burst(10), "what one user may post")
	return f
}

func usage() string {
	var b strings.Builder
	f := flags(&Config{})
	f.SetOutput(&b)
	fmt.Fprintln(&b, "Usage: go run ./examples/chat [flags]")
	f.PrintDefaults()
	return b.String()
}

func parseFlags(args []string) (Config, error) {
	var c Config
	f := flags(&c)
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q, see -h", f.Arg(0))
	case c.Shards < 0 || c.Shards > 256:
		return c, fmt.Errorf("-shards is %d, expected 1 to 256", c.Shards)
	case !(c.Load >= 0 && c.Load <= 100_000):
		return c, fmt.Errorf("-load is %v, expected 0 to 100000 requests per second", c.Load)
	case c.For < 0:
		return c, fmt.Errorf("-for is %v, expected 0 or more", c.For)
	case c.Slow < 0 || c.Slow > time.Minute:
		return c, fmt.Errorf("-slow is %v, expected 0 to 1m", c.Slow)
	case c.Webhook != "" && !strings.HasPrefix(c.Webhook, "http://") && !strings.HasPrefix(c.Webhook, "https://"):
		return c, fmt.Errorf("-webhook is %q, expected an http or https URL", c.Webhook)
	}
	return c, nil
}
