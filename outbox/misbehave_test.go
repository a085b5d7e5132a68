package outbox_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// TestErrorThatMisbehavesConcernsItsCallOnly: errors are asked what they are, and
// are other people's code.
func TestErrorThatMisbehavesConcernsItsCallOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newOutbox(t, outbox.Options{Topics: map[string]outbox.Topic{"asks": {}, "t": {}}})
		f, l := outbox.NewFake(1), new(log)
		asked := make(chan struct{})
		stop := running(t, box, f, l.publisher(func(_ context.Context, m outbox.Message) error {
			if m.Topic == "asks" {
				return blockingError{asked}
			}
			return nil
		}))
		f.Add(outbox.Message{Topic: "asks"})
		time.Sleep(time.Minute)
		f.Add(msg("k", "1"))
		time.Sleep(time.Minute)
		names, _ := l.take()
		require.Equal(t, []string{"1"}, names)
		close(asked)
		stop()
	})
}

type blockingError struct{ c chan struct{} }

func (e blockingError) Error() string { <-e.c; return "asked" }

// TestGoroutineThatEndsLeavesNothing: a Publisher, an error or a hook may call
// t.FailNow while other calls run.
func TestGoroutineThatEndsLeavesNothing(t *testing.T) {
	for _, where := range []string{"Publish", "Error", "Trace"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := outbox.Options{Topics: map[string]outbox.Topic{"ends": {}, "t": {Concurrency: 3}}, Concurrency: 4, Batch: 1}
				if where == "Trace" {
					o.Trace = &outbox.Trace{Published: func(topic string, _, _ int, _ time.Duration) {
						if topic == "ends" {
							runtime.Goexit()
						}
					}}
				}
				f := outbox.NewFake(1)
				f.Add(msg("a", "1"), msg("b", "2"), msg("c", "3"), outbox.Message{Topic: "ends"})
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					_ = newOutbox(t, o).RunOn(t.Context(), f, publisher(func(ctx context.Context, batch []outbox.Message) []error {
						if batch[0].Topic == "t" {
							<-ctx.Done()
							return []error{ctx.Err()}
						}
						time.Sleep(time.Second)
						switch where {
						case "Publish":
							runtime.Goexit()
						case "Error":
							return []error{exitingError{}}
						}
						return nil
					}))
					panic("Run has returned")
				}()
				<-ended
				synctest.Wait()
				shares, _ := f.Shares()
				require.Empty(t, shares)
			})
		})
	}
}

type exitingError struct{}

func (exitingError) Error() string { runtime.Goexit(); return "" }
