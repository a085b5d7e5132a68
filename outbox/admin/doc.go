// Package admin is a page for the person who looks after an outbox: what is
// waiting, who drains, which messages are dead; with buttons that replay and
// purge dead messages, and pause and resume a topic. The same as JSON, for
// programs.
//
// # Who may see it
//
// The handler has no login. Whoever reaches it reads payloads and deletes dead
// messages, so it must stand behind the authentication of the service:
//
//	page, err := admin.Handler(box, db)
//	…
//	mux.Handle("/admin/outbox/", requireOperator(http.StripPrefix("/admin/outbox", page)))
//
// Any prefix will do, since all links are relative. Where the authentication is a
// cookie or the like, which browsers send by themselves, another site could make
// a browser send a request too: such requests are refused
// ([http.CrossOriginProtection]), as long as the proxies in front leave the Host
// header alone. All other headers of a careful page are set: nothing is cached,
// framed, run as a script, or loaded from elsewhere.
//
// # Requests
//
// Parameters of a GET are in the query, those of a POST are a form in the body
// (application/x-www-form-urlencoded). Names that are not listed are refused.
//
//	GET  .         the page; after=ID begins the dead messages behind that one
//	GET  stats     outbox.Stats; durations are in seconds
//	GET  dead      dead messages in order of ID: after=ID (0), limit=1…100 (50),
//	               bytes=0…1048576 of each payload (1024). "next" is what to give
//	               as after for the next ones, and is absent at the end
//	POST replay    id=ID, up to 1000 times; answers {"replayed":2}
//	POST purge     before=TIME, RFC 3339, or without zone in UTC; deletes the dead
//	               messages that died before it; answers {"purged":2}
//	POST pause     topic=NAME; answers {"topic":"orders","paused":true}
//	POST resume    topic=NAME
//
// So a program, or a person with curl, does
//
//	curl -d id=17 -d id=18 https://ops.example/admin/outbox/replay
//
// Who accepts text/html is sent back to the page instead (303). Errors are
// problem details (RFC 9457), with a detail that names the parameter, its value
// and what is expected, and for text/html the same as a page: 400, 403 for another
// site's request, 404, 405, 413 for a body over 64 KiB, 415 for one that is no
// form, and 500 with the error of the database.
//
// # Cost
//
// The page and stats cost one [outbox.Outbox.Stats], which is bounded. Dead
// messages are read with their payloads, a page at a time. Nothing runs in the
// background, and nothing is logged.
package admin
