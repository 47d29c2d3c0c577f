package api

import (
	"encoding/base64"
	"encoding/json"
	"hash/fnv"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/proto/wire"
)

// Limits of a page.
const (
	defaultPage  = 100
	maxPage      = 1000
	maxPageBytes = wire.MaxResponse - wire.MaxMessage // one item more than fits has room
)

// cursor is what a page token says: where the next page begins. Version lets a
// later one tell it from its own.
type cursor struct {
	Version int    `json:"v"`
	Query   string `json:"q"` // a hash of what was asked for

	Serial uint64 `json:"s,omitempty"` // of the last run that was looked at
	First  string `json:"a,omitempty"` // of the last item: its namespace, or its name
	Second string `json:"b,omitempty"` // of the last item: its name, or its id
}

const cursorVersion = 1

// pager cuts a list into pages.
type pager struct {
	size  int
	from  cursor // of the page before; Query is that of this list
	bytes int    // on the page so far
	count int    // likewise
}

// page checks what a request says of pages. query is all else that it asks for:
// a token is good for the same only.
func (c scope) page(size int32, token string, query ...string) *pager {
	p := &pager{size: int(number(c.in("page_size"), size, 1, maxPage, defaultPage)), from: cursor{Version: cursorVersion}}
	h := fnv.New64a()
	for _, q := range query {
		h.Write([]byte(strconv.Quote(q)))
	}
	query64 := strconv.FormatUint(h.Sum64(), 36)
	if token != "" {
		c = c.in("page_token")
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err == nil {
			err = json.Unmarshal(raw, &p.from)
		}
		switch {
		case err != nil || p.from.Version != cursorVersion:
			c.failf("is not one that this API gave: take next_page_token of the page before, or none")
		case p.from.Query != query64:
			c.failf("is that of another list or another filter: begin again without it")
		}
	}
	p.from.Query = query64
	return p
}

// add takes an item in, unless the page is full.
func (p *pager) add(m proto.Message) bool {
	n := proto.Size(m) + 8
	if p.count >= p.size || p.count > 0 && p.bytes+n > maxPageBytes {
		return false
	}
	p.count++
	p.bytes += n
	return true
}

// token returns the token of the page that follows the item.
func (p *pager) token(serial uint64, first, second string) string {
	next := cursor{Version: cursorVersion, Query: p.from.Query, Serial: serial, First: first, Second: second}
	raw, err := json.Marshal(next)
	if err != nil {
		panic("api: a cursor of numbers and strings: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}
