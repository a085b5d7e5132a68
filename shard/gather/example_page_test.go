package gather_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// A list is read page by page, and between two pages a shard is split: the cursor
// says where in the order to go on, and nothing about shards.
func ExampleQuery_Page() {
	type user struct {
		Name string
		ID   int64
	}
	all := []user{{"ada", 4}, {"bob", 2}, {"bob", 5}, {"cleo", 1}, {"dan", 3}}
	byName := func(a, b user) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) }

	cursors, _ := gather.NewCursors([]byte("32 random bytes from your secrets"))
	users := gather.Query[user, user]{
		Cursors:     cursors,
		Fingerprint: "users by name, id",
		Compare:     byName,
		Position:    func(u user) user { return u }, // the columns of the order
		Fetch: func(_ context.Context, s *shard.Shard, after *user, limit int) ([]user, error) {
			// SELECT name, id FROM users WHERE hash BETWEEN … AND (name, id) > (…) ORDER BY name, id LIMIT …
			rows := slices.DeleteFunc(slices.Clone(all), func(u user) bool {
				return !s.Range.Contains(shard.XXHash(fmt.Sprint(u.ID))) || after != nil && byName(u, *after) <= 0
			})
			return rows[:min(limit, len(rows))], nil
		},
	}

	two := exampleMap()
	page, err := users.Page(context.Background(), two.All(), "", 3, gather.Options{})
	fmt.Println(page.Rows, page.Next != "", err)

	ranges, _ := shard.EvenRanges(4)
	four, _ := shard.NewMap(2, shard.Shard{Range: ranges[0]}, shard.Shard{Range: ranges[1]}, shard.Shard{Range: ranges[2]}, shard.Shard{Range: ranges[3]})
	page, err = users.Page(context.Background(), four.All(), page.Next, 3, gather.Options{})
	fmt.Println(page.Rows, page.Next != "", err)

	_, err = users.Page(context.Background(), four.All(), "AQnonsense", 3, gather.Options{})
	fmt.Println(err)
	// Output:
	// [{ada 4} {bob 2} {bob 5}] true <nil>
	// [{cleo 1} {dan 3}] false <nil>
	// gather: bad cursor: not base64url
}
