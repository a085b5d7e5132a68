package gather_test

import (
	"testing"

	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// BenchmarkSketch adds values that are in the sketch already, so that its form stays.
// The floor is the loop.
func BenchmarkSketch(b *testing.B) {
	for _, c := range []struct {
		form   string
		values uint64
	}{{"sparse", 500}, {"dense", 100_000}} {
		b.Run("op=add/form="+c.form, func(b *testing.B) {
			s := new(gather.Sketch)
			for v := range c.values {
				s.Add(v)
			}
			b.ReportAllocs()
			for v := uint64(0); b.Loop(); v = (v + 1) % c.values {
				s.Add(v)
			}
		})
	}
	b.Run("op=floor", func(b *testing.B) {
		sum := uint64(0)
		for v := uint64(0); b.Loop(); v = (v + 1) % 500 {
			sum += v
		}
		_ = sum
	})
}

// BenchmarkCursors seals and opens the cursor of a position of a usual size.
func BenchmarkCursors(b *testing.B) {
	c := cursorsOf(b, key(1))
	position := []byte(`{"CreatedAt":"2026-01-02T03:04:05.678901Z","ID":175928847299117063}`)
	text, err := c.Seal("messages by day", position)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("op=seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Seal("messages by day", position)
		}
	})
	b.Run("op=open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Open("messages by day", text)
		}
	})
}
