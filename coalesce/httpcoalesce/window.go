package httpcoalesce

import (
	"slices"
	"sort"
)

// A window is the part of a body that is kept: the bytes from start to end, counted
// from the body's first byte. Bytes are only ever appended, so what at returned
// stays valid when it is dropped.
type window struct {
	blocks     []block
	start, end int64
}

type block struct {
	at   int64 // where its first byte is in the body
	data []byte
}

const (
	minBlock = 4 << 10
	maxBlock = 32 << 10
)

// add appends a copy of p. A new block has room for want bytes, within reason: so
// much is expected to come.
func (w *window) add(p []byte, want int64) {
	for len(p) > 0 {
		last := len(w.blocks) - 1
		if last < 0 || len(w.blocks[last].data) == cap(w.blocks[last].data) {
			size := max(int64(len(p)), min(want, maxBlock))
			w.blocks = append(w.blocks, block{w.end, make([]byte, 0, min(size, maxBlock))})
			last++
		}
		b := &w.blocks[last]
		n := min(len(p), cap(b.data)-len(b.data))
		b.data = append(b.data, p[:n]...)
		w.end += int64(n)
		p = p[n:]
	}
}

// at returns bytes from pos on, at least one and none from limit on. pos must be in
// the window and before limit.
func (w *window) at(pos, limit int64) []byte {
	i := sort.Search(len(w.blocks), func(i int) bool { return w.blocks[i].at > pos }) - 1
	b := w.blocks[i]
	return b.data[pos-b.at : min(int64(len(b.data)), limit-b.at)]
}

// first returns up to n bytes from the start on.
func (w *window) first(n int64) []byte {
	n = min(n, w.end-w.start)
	var p []byte
	for int64(len(p)) < n {
		p = append(p, w.at(w.start+int64(len(p)), w.start+n)...)
	}
	return p
}

// drop gives up what is before pos.
func (w *window) drop(pos int64) {
	w.start = pos
	i := 0
	for i < len(w.blocks) && w.blocks[i].at+int64(len(w.blocks[i].data)) <= pos {
		i++
	}
	w.blocks = slices.Delete(w.blocks, 0, i)
}
