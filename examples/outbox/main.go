// Outbox shows four ways to lose an event, and the one that does not.
//
// The problem: a shop changes an order in its database and tells a broker about
// it. Processes die, transactions roll back, and two things that happen at about
// the same time are seen in either order. The obvious ways to tell the broker
// then lose events, invent them, or deliver two changes of one order the wrong
// way round: the broker here never fails, and still they do.
//
// The idea: write the event into the database, in the transaction of the change,
// and let a drainer deliver what is there and delete what was delivered. One
// drainer at a time has the lease, so the order is kept.
//
// What you will see: go run ./examples/outbox plays the same seeded script of
// requests, rollbacks and crashes five times, each time with another way to tell
// the broker, and counts what the broker got. Each way is a file of its own, to
// be read beside the others: 1_after_commit.go to 5_outbox.go. A crash is a
// process that goes no further: what it had in memory is gone, its connections
// are closed, and its successor finds what is in the database. The real kill -9
// is in internal/integration/outbox, on real servers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its surroundings as parameters. It returns the exit code: 0, 1
// if something failed on the way, 2 if the arguments are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage())
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "outbox:", err)
		return 2
	}
	s := newScript(c.seed, c.requests)
	results, err := playAll(ctx, s)
	if err != nil {
		fmt.Fprintln(stderr, "outbox:", err)
		return 1
	}
	if err := report(stdout, c, s, results); err != nil {
		return 1 // nobody reads it
	}
	return 0
}

// ways are the ways to get an event out, in the order of the files.
func ways() []way {
	return []way{&afterCommit{}, &beforeCommit{}, &cursor{}, &twoDrainers{}, &withOutbox{}}
}

// A result is what became of the script with one way.
type result struct {
	way way
	verdict
}

// playAll plays the script once for each way, on a new database each.
func playAll(ctx context.Context, s script) (results []result, err error) {
	folder, err := os.MkdirTemp("", "outbox-example-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	for i, w := range ways() {
		v, err := play(ctx, s, w, filepath.Join(folder, fmt.Sprintf("%d.db", i+1)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name(), err)
		}
		results = append(results, result{w, v})
	}
	return results, nil
}

func report(w io.Writer, c config, s script, results []result) error {
	fmt.Fprintf(w, "%d requests change %d orders; %d of them roll back, the shop crashes %d times and a drainer %d times (seed %d)\n\n",
		c.requests, orders, s.rollbacks, s.shopCrashes, s.drainerCrashes, c.seed)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "COMMITTED\tLOST\tINVENTED\tOUT OF ORDER\tREPEATED\t   WAY")
	for i, r := range results {
		fmt.Fprintf(tw, "%d\t%d\t%d\t%d\t%d\t   %d %s\n", r.committed, r.lost, r.invented, r.disordered, r.repeated, i+1, r.way.name())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i, r := range results {
		fmt.Fprintf(w, "%d  %s\n", i+1, r.way.lesson())
	}
	_, err := fmt.Fprintln(w, "\nA repeated delivery has the ID of the first one, so that a receiver can drop it.")
	return err
}

type config struct {
	seed     uint64
	requests int
}

const maxRequests = 100_000

func flags(c *config) *flag.FlagSet {
	f := flag.NewFlagSet("outbox", flag.ContinueOnError)
	f.SetOutput(io.Discard) // run prints the one line that matters
	f.Uint64Var(&c.seed, "seed", 1, "seed of the script: the same seed gives the same numbers")
	f.IntVar(&c.requests, "requests", 1000, "how many requests the script has")
	return f
}

func usage() string {
	var b strings.Builder
	f := flags(&config{})
	f.SetOutput(&b)
	fmt.Fprintln(&b, "Usage: go run ./examples/outbox [flags]")
	fmt.Fprintln(&b, "Plays one script of requests, rollbacks and crashes with four ways to lose an event, and the one that does not.")
	f.PrintDefaults()
	return b.String()
}

func parseFlags(args []string) (config, error) {
	var c config
	f := flags(&c)
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q, see -h", f.Arg(0))
	case c.requests < 1 || c.requests > maxRequests:
		return c, fmt.Errorf("-requests is %d, expected 1 to %d", c.requests, maxRequests)
	}
	return c, nil
}
