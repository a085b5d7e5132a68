package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
)

type none struct{}

func (none) Publish(context.Context, []outbox.Message) []error { return nil }

// BenchmarkSession drains 10,000 messages from a database that costs nothing to a
// Publisher that does nothing: what the drainer itself costs, with so many keys.
// The floor hands the same batches over as they are. Real drains, with databases,
// are in internal/integration.
func BenchmarkSession(b *testing.B) {
	const messages, batch = 10_000, 100
	box := newOutbox(b, outbox.Options{Batch: batch})
	for _, keys := range []int{messages, 100, 1} {
		msgs := make([]outbox.Message, messages)
		for i := range msgs {
			msgs[i] = outbox.Message{ID: int64(i + 1), Topic: "orders", Key: fmt.Sprintf("order/%d", i%keys), Payload: make([]byte, 200)}
		}
		b.Run(fmt.Sprintf("impl=floor/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for rest := msgs; len(rest) > 0; rest = rest[batch:] {
					copied := make([]outbox.Message, batch)
					copy(copied, rest)
					none{}.Publish(b.Context(), copied)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/row")
		})
		b.Run(fmt.Sprintf("impl=outbox/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n, err := box.DrainStack(b.Context(), outbox.NewStack(msgs), none{})
				if err != nil || n != messages {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/row")
		})
	}
}

// BenchmarkBackoff is one random number and little else.
func BenchmarkBackoff(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	b.Run("impl=floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = r.Int64N(int64(time.Minute))
		}
	})
	b.Run("impl=outbox", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = outbox.Backoff(r, time.Second, time.Minute, 7)
		}
	})
}

// BenchmarkWake is what a request pays after its commit. The floor is a
// non-blocking send.
func BenchmarkWake(b *testing.B) {
	b.Run("impl=floor", func(b *testing.B) {
		b.ReportAllocs()
		wake := make(chan struct{}, 1)
		for b.Loop() {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	})
	b.Run("impl=outbox", func(b *testing.B) {
		b.ReportAllocs()
		box := newOutbox(b, outbox.Options{})
		for b.Loop() {
			box.Wake()
		}
	})
	b.Run("impl=outbox-parallel", func(b *testing.B) {
		b.ReportAllocs()
		box := newOutbox(b, outbox.Options{})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				box.Wake()
			}
		})
	})
}
