package httpgather_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
	"github.com/evenkeel-go/evenkeel/shard/gather/httpgather"
)

// An export of all rows of all shards. A shard fails in the middle, and the client
// goes on where it was.
func Example() {
	type message struct{ ID int64 }
	ranges, _ := shard.EvenRanges(2)
	m, _ := shard.NewMap(1, shard.Shard{Range: ranges[0]}, shard.Shard{Range: ranges[1]})

	calls := 0
	cursors, _ := gather.NewCursors([]byte("32 random bytes from your secrets"))
	query := gather.Query[message, int64]{
		Cursors:     cursors,
		Fingerprint: "messages by id",
		Compare:     func(a, b message) int { return cmp.Compare(a.ID, b.ID) },
		Position:    func(m message) int64 { return m.ID },
		Fetch: func(_ context.Context, s *shard.Shard, after *int64, limit int) (rows []message, err error) {
			if s.Range.Start == 0 {
				if calls++; calls == 3 {
					return nil, errors.New("dial tcp 10.0.0.7:5432: connection refused")
				}
			}
			for id := int64(1); id <= 10 && len(rows) < limit; id++ { // SELECT … WHERE id > … ORDER BY id LIMIT …
				if s.Range.Contains(shard.XXHash(fmt.Sprint(id))) && (after == nil || id > *after) {
					rows = append(rows, message{id})
				}
			}
			return rows, nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rows := func(ctx context.Context) iter.Seq2[message, error] {
			return query.All(ctx, m.All(), r.URL.Query().Get("after"), 3, gather.Options{})
		}
		_ = httpgather.Serve(w, r, rows, httpgather.Options[message]{Cursor: query.Cursor}) // the error is for the log
	}))
	defer server.Close()

	var got []int64
	for cursor, end := "", false; !end; {
		res, err := http.Get(server.URL + "?after=" + url.QueryEscape(cursor))
		if err != nil {
			fmt.Println(err)
			return
		}
		for batch, err := range httpgather.ReadBatches[message](res, httpgather.ReadOptions{}) {
			if err != nil {
				fmt.Println("client:", err)
				break
			}
			for _, m := range batch.Rows {
				got = append(got, m.ID)
			}
			cursor, end = batch.Cursor, batch.End // stored together with what became of the rows
		}
	}
	fmt.Println(got, slices.IsSorted(got))
	// Output:
	// client: httpgather: the server failed, status 200: some shards did not answer
	// [1 2 3 4 5 6 7 8 9 10] true
}

// One page as a JSON array. The last element holds the cursor of the next.
func ExampleServe() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		page := gather.Page[int]{Rows: []int{7, 8, 9}, Next: "AV7…"} // of a Query
		_ = httpgather.Serve(w, r, func(context.Context) iter.Seq2[int, error] {
			return gather.Rows(page.Rows)
		}, httpgather.Options[int]{Next: func() string { return page.Next }})
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/messages", nil)
	r.Header.Set("Accept", "application/json")
	handler(w, r)
	fmt.Println(w.Body)
	// Output:
	// [
	// 7,
	// 8,
	// 9,
	// {"$end":{"rows":3,"next":"AV7…"}}
	// ]
}
