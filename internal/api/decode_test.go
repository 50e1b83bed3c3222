package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const (
	asJSON  = "application/json"
	keypair = "conf:bB1s7fJ26j/XSGohL9YrMvu57KpN6nBUVIZzcZndJO1aWBclVF1TPIz/sLZYx2L9jKohYSLq/OOt9IbEHp43ow=="
	hash    = "xcp9cav49dmsjbwdjlmkjxj10gkpx553"
)

// status returns the status that err answers with, 200 for none.
func status(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 200
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error", err)
	}
	return e.Code
}

func TestContentTypeMustSayJSON(t *testing.T) {
	for contentType, want := range map[string]int{
		"application/json": 200, "Application/JSON; charset=utf-8": 200, "application/vnd.x+json": 200, "application/a+b+json": 200,
		"": 415, "text/json": 415, "text/plain": 415, "application/jsonx": 415, "application/+json": 415, "application/json+xml": 415,
		"application/x-www-form-urlencoded": 415, "json": 415, "application/": 415, "application/octet-stream": 415,
	} {
		_, err := DecodeMissingPaths(contentType, []byte(`{"cache":"a","store_path_hashes":[]}`))
		if got := status(t, err); got != want {
			t.Errorf("%q: %d, want %d", contentType, got, want)
		}
	}
	if _, err := DecodePatchCache("", nil); status(t, err) != 415 {
		t.Errorf("no body and no type: %v", err)
	}
}

func TestDecodeCreateCacheStatus(t *testing.T) {
	const rest = `"is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["k"]`
	pair := func(k string) string { return `{"keypair":` + k + `,` + rest + `}` }
	for body, want := range map[string]int{
		pair(`"Generate"`):                    200,
		pair(`{"Keypair":"` + keypair + `"}`): 200,
		pair(`{"Generate":null}`):             200,
		pair(`"Generate"`) + " \n":            200,
		`["Generate",true,"/nix/store",1,[]]`: 200,

		pair(`null`): 400, pair(`1`): 400, pair(`[]`): 400, pair(`{}`): 400, pair(`{"Keypair":"` + keypair + `","x":1}`): 400,
		pair(`{"Generate":null,"Keypair":"x"}`): 400, pair(`{"Keypair":"` + keypair + `"`): 400,
		pair(`"generate"`): 422, pair(`"Keypair"`): 422, pair(`{"Keypair":"x"}`): 422, pair(`{"Keypair":null}`): 422, pair(`{"Generate":1}`): 422,
		pair(`{"Other":1}`): 422,
		// Halves that do not belong together sign what nobody can verify.
		pair(`{"Keypair":"` + strings.Replace(keypair, "HS256", "", 1)[:20] + `A` + keypair[21:] + `"}`): 422,

		``: 400, `x`: 400, `{`: 400, "\ufeff" + pair(`"Generate"`): 400, pair(`"Generate"`) + "x": 400, pair(`"Generate"`) + "{}": 400,
		"{\"keypair\":\"\xff\"}": 400, `{"keypair":"\ud800"}`: 400,
		`null`: 422, `1`: 422, `"x"`: 422, `[]`: 422, `{}`: 422, `["Generate"]`: 422, `["Generate",true,"/nix/store",1,[],1]`: 400,
		`{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41}`:                                       422,
		`{"keypair":"Generate","keypair":"Generate",` + rest + `}`:                                                              422,
		`{"x":1,"x":[{"y":1e999}],"keypair":"Generate",` + rest + `}`:                                                           200,
		`{"keypair":"Generate","is_public":1,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`:             422,
		`{"keypair":"Generate","is_public":null,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`:          422,
		`{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":2147483648,"upstream_cache_key_names":[]}`:  422,
		`{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":-2147483648,"upstream_cache_key_names":[]}`: 200,
		`{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41.0,"upstream_cache_key_names":[]}`:        422,
		`{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":041,"upstream_cache_key_names":[]}`:         400,
		`{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[1]}`:         422,
		`{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":null}`:        422,
		`{"keypair":"Generate","is_public":true,"store_dir":"/s\nPriority: 1","priority":41,"upstream_cache_key_names":[]}`:     422,
	} {
		_, err := DecodeCreateCache(asJSON, []byte(body))
		if got := status(t, err); got != want {
			t.Errorf("%s: %d (%v), want %d", body, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), keypair[5:30]) {
			t.Errorf("the error quotes the key: %v", err)
		}
	}
}

func TestDecodePatchCacheStatus(t *testing.T) {
	for body, want := range map[string]int{
		`{}`: 200, `{"is_public":true}`: 200, `{"priority":null,"keypair":null,"store_dir":null,"upstream_cache_key_names":null,"retention_period":null}`: 200,
		`{"retention_period":"Global"}`: 200, `{"retention_period":{"Global":null}}`: 200, `{"retention_period":{"Period":0}}`: 200,
		`{"retention_period":{"Period":4294967295}}`: 200, // CheckRetention says 400, after the permissions
		`{"retention_period":{"Period":4294967296}}`: 422, `{"retention_period":{"Period":-1}}`: 422, `{"retention_period":{"Period":1.5}}`: 422,
		`{"retention_period":{"Period":"1"}}`: 422, `{"retention_period":"Period"}`: 422, `{"retention_period":"global"}`: 422, `{"retention_period":{"Global":1}}`: 422,
		`{"retention_period":60}`: 400, `{"retention_period":[]}`: 400, `{"retention_period":true}`: 400, `{"retention_period":{"Period":1,"Period":2}}`: 400, `{"retention_period":{}}`: 400,
		`{"public_key":"x","api_endpoint":"y","substituter_endpoint":"z"}`: 200, `{"public_key":null}`: 200,
		`{"public_key":1}`: 422, `{"api_endpoint":[]}`: 422, `{"substituter_endpoint":{}}`: 422, `{"public_key":"x","public_key":"x"}`: 422,
		`{"is_public":true,"is_public":true}`: 422, `{"unknown":1,"unknown":2}`: 200, `[]`: 422, `[null,true]`: 422, `null`: 422,
		`[null,null,null,"k",true,null,7,[],"Global"]`: 200, `[null,null,null,null,null,null,null,null,null]`: 200,
		`[null,null,null,1,true,null,7,[],"Global"]`: 422, `[null,null,null,null,null,null,null,null,null,null]`: 400,
		`{"priority":"1"}`: 422, `{"priority":1`: 400, `{"is_public":tru}`: 400, `{"keypair":1}`: 400,
	} {
		_, err := DecodePatchCache(asJSON, []byte(body))
		if got := status(t, err); got != want {
			t.Errorf("%s: %d (%v), want %d", body, got, err, want)
		}
	}
}

func TestDecodePatchCacheValues(t *testing.T) {
	p, err := DecodePatchCache(asJSON, []byte(`{"is_public":false,"priority":-7,"store_dir":"/s","upstream_cache_key_names":[],"retention_period":{"Period":5},"keypair":{"Keypair":"`+keypair+`"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if *p.IsPublic || *p.Priority != -7 || *p.StoreDir != "/s" || *p.UpstreamCacheKeyNames == nil || *p.RetentionPeriod.Seconds != 5 || p.Keypair.Text != keypair || p.Empty() {
		t.Errorf("got %+v", p)
	}
	if s := fmt.Sprintf("%v %+v %#v", p.Keypair, *p.Keypair, *p.Keypair); strings.Contains(s, "conf:") {
		t.Errorf("the keypair prints: %s", s)
	}
	back, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := DecodePatchCache(asJSON, back); err != nil || again.Keypair.Text != keypair {
		t.Errorf("%s: %v", back, err)
	}
	row, err := DecodePatchCache(asJSON, []byte(`[null,null,null,"k",true,null,7,null,{"Period":5}]`))
	if err != nil || row.Keypair != nil || !*row.IsPublic || row.StoreDir != nil || *row.Priority != 7 || *row.RetentionPeriod.Seconds != 5 {
		t.Errorf("by position: %+v, %v", row, err)
	}
	null, err := DecodePatchCache(asJSON, []byte(`{"is_public":null,"public_key":"x","y":1}`))
	if err != nil || !null.Empty() {
		t.Errorf("nulls change something: %+v, %v", null, err)
	}
}

func TestRetentionBeyondStorageIs400(t *testing.T) {
	for seconds, want := range map[string]int{"2147483647": 200, "2147483648": 400} {
		p, err := DecodePatchCache(asJSON, []byte(`{"retention_period":{"Period":`+seconds+`}}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := status(t, p.CheckRetention()); got != want {
			t.Errorf("%s: %d, want %d", seconds, got, want)
		}
	}
}

func TestDecodeMissingPathsStatus(t *testing.T) {
	for body, want := range map[string]int{
		`{"cache":"a","store_path_hashes":["` + hash + `","` + hash + `"]}`:   200,
		`{"store_path_hashes":[],"cache":"a","more":{}}`:                      200,
		`["a",["` + hash + `"]]`:                                              200,
		`{"cache":"_a","store_path_hashes":[]}`:                               422,
		`{"cache":"a","store_path_hashes":["` + hash[1:] + `"]}`:              422,
		`{"cache":"a","store_path_hashes":["` + hash[1:] + `e"]}`:             422,
		`{"cache":"a","store_path_hashes":["` + strings.ToUpper(hash) + `"]}`: 422,
		`{"cache":"a","store_path_hashes":[null]}`:                            422,
		`{"cache":"a","store_path_hashes":"` + hash + `"}`:                    422,
		`{"cache":"a"}`: 422,
		`{"cache":"a","cache":"a","store_path_hashes":[]}`:    422,
		`{"cache":"a","store_path_hashes":[]`:                 400,
		`{"cache":"_a","store_path_hashes":[`:                 422, // the first fault decides
		`{"cache":"a","store_path_hashes":["` + hash + `",]}`: 400,
	} {
		_, err := DecodeMissingPaths(asJSON, []byte(body))
		if got := status(t, err); got != want {
			t.Errorf("%s: %d (%v), want %d", body, got, err, want)
		}
	}
}

func upload(change func(m map[string]any)) []byte {
	m := map[string]any{
		"cache": "main", "store_path_hash": hash, "store_path": "/nix/store/" + hash + "-hello-2.10",
		"references": []string{hash + "-hello-2.10"}, "system": nil, "deriver": nil, "sigs": []string{"k:x"}, "ca": nil,
		"nar_hash": "sha256:" + strings.Repeat("0", 64), "nar_size": 0,
	}
	change(m)
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func TestDecodeUploadInfoAccepts(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"as it is":          func(m map[string]any) {},
		"optionals missing": func(m map[string]any) { delete(m, "system"); delete(m, "deriver"); delete(m, "ca") },
		"unknown members":   func(m map[string]any) { m["x"] = []int{1} },
		"base-32 hash":      func(m map[string]any) { m["nar_hash"] = "sha256:" + strings.Repeat("0", 52) },
		"upper case hash":   func(m map[string]any) { m["nar_hash"] = "sha256:" + strings.Repeat("A", 64) },
		"another store":     func(m map[string]any) { m["store_path"] = "/gnu/store/" + hash + "-x" },
		"texts":             func(m map[string]any) { m["system"], m["deriver"], m["ca"] = "s", hash+"-x.drv", "text:sha256:x" },
		"the largest size":  func(m map[string]any) { m["nar_size"] = uint64(1<<64 - 1) },
	} {
		if _, err := DecodeUploadInfo(upload(change)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	array := `["main","` + hash + `","/nix/store/` + hash + `-x",[],null,null,[],null,"sha256:` + strings.Repeat("0", 64) + `",1]`
	if u, err := DecodeUploadInfo([]byte(array)); err != nil || u.NARSize != 1 {
		t.Errorf("by position: %v", err)
	}
}

func TestDecodeUploadInfoAnswers400(t *testing.T) {
	set := func(key string, value any) func(map[string]any) { return func(m map[string]any) { m[key] = value } }
	for name, change := range map[string]func(map[string]any){
		"no cache":                 func(m map[string]any) { delete(m, "cache") },
		"bad cache":                set("cache", "a/b"),
		"bad hash":                 set("store_path_hash", "e"),
		"empty store path":         set("store_path", ""),
		"the root":                 set("store_path", "/"),
		"a bare name":              set("store_path", hash+"-x"),
		"another path's hash":      set("store_path", "/nix/store/0"+hash[1:]+"-x"),
		"a path inside":            set("store_path", "/nix/store/"+hash+"-x/bin"),
		"climbing":                 set("store_path", "/nix/../"+hash+"-x"),
		"a line of narinfo":        set("store_path", "/nix/store/"+hash+"-x\nURL: http://evil"),
		"a line in the deriver":    set("deriver", "x\nSig: y"),
		"a line in the system":     set("system", "x\ry"),
		"a line in the ca":         set("ca", "x\ny"),
		"a line in a signature":    set("sigs", []string{"k:x\nCA: y"}),
		"a full reference":         set("references", []string{"/nix/store/" + hash + "-x"}),
		"two references in one":    set("references", []string{hash + "-x " + hash + "-y"}),
		"a line in a reference":    set("references", []string{hash + "-x\nSig: y"}),
		"references null":          set("references", nil),
		"sigs missing":             func(m map[string]any) { delete(m, "sigs") },
		"sigs of numbers":          set("sigs", []int{1}),
		"SRI hash":                 set("nar_hash", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
		"another algorithm":        set("nar_hash", "sha512:"+strings.Repeat("0", 64)),
		"a hash without algorithm": set("nar_hash", strings.Repeat("0", 64)),
		"negative size":            set("nar_size", -1),
		"size with a fraction":     set("nar_size", 1.5),
		"size as text":             set("nar_size", "1"),
	} {
		if _, err := DecodeUploadInfo(upload(change)); status(t, err) != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := string(upload(func(map[string]any) {}))
	for _, info := range []string{"", "{", "null", good + "x", "\ufeff" + good, strings.Replace(good, `{`, `{"cache":"main",`, 1)} {
		if _, err := DecodeUploadInfo([]byte(info)); status(t, err) != 400 {
			t.Errorf("%.40q: %v", info, err)
		}
	}
}

func TestUploadInfoIsWrittenAsTheStockClientDoes(t *testing.T) {
	u, err := DecodeUploadInfo(upload(func(m map[string]any) { m["sigs"] = []string{} }))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cache":"main","store_path_hash":"` + hash + `","store_path":"/nix/store/` + hash + `-hello-2.10","references":["` + hash + `-hello-2.10"],"system":null,"deriver":null,"sigs":[],"ca":null,"nar_hash":"sha256:` + strings.Repeat("0", 64) + `","nar_size":0}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnswersHaveAtticsKeysInOrder(t *testing.T) {
	period, size, frac := uint32(0), int64(97), 0.5
	for _, c := range []struct {
		value any
		want  string
	}{
		{CacheConfig{UpstreamCacheKeyNames: []string{}}, `{"substituter_endpoint":"","api_endpoint":"","public_key":"","is_public":false,"store_dir":"","priority":0,"upstream_cache_key_names":[],"retention_period":"Global"}`},
		{Retention{&period}, `{"Period":0}`},
		{MissingPaths{[]string{}}, `{"missing_paths":[]}`},
		{UploadResult{Kind: Deduplicated}, `{"kind":"Deduplicated","frac_deduplicated":null}`},
		{UploadResult{Uploaded, &size, &frac}, `{"kind":"Uploaded","file_size":97,"frac_deduplicated":0.5}`},
		{&Error{Code: 404, Name: NoSuchCache, Message: "m"}, `{"code":404,"error":"NoSuchCache","message":"m"}`},
		{CreateCache{Keypair: Keypair{Generate: true}, UpstreamCacheKeyNames: []string{}}, `{"keypair":"Generate","is_public":false,"store_dir":"","priority":0,"upstream_cache_key_names":[]}`},
	} {
		if got, err := json.Marshal(c.value); err != nil || string(got) != c.want {
			t.Errorf("got %s, %v; want %s", got, err, c.want)
		}
	}
}

func TestDecodeErrorWantsAllThreeKeys(t *testing.T) {
	if e, ok := DecodeError([]byte(`{"code":409,"error":"UnknownChunks","message":"m","chunks":["a"]}`)); !ok || e.Code != 409 || len(e.Chunks) != 1 {
		t.Errorf("%+v, %v", e, ok)
	}
	for _, body := range []string{``, `<html>`, `{}`, `{"code":1,"error":"x"}`, `{"code":"1","error":"x","message":"m"}`, `null`} {
		if e, ok := DecodeError([]byte(body)); ok {
			t.Errorf("%s: %+v", body, e)
		}
	}
}

func TestURLsKeepTheEndpointsPath(t *testing.T) {
	for _, endpoint := range []string{"https://d.tld/attic", "https://d.tld/attic/"} {
		got, err := URL(endpoint, Expand(PackRoute, "cache", "a+b", "sha256", "00"))
		if want := "https://d.tld/attic/_api/v1/cache/a+b/packs/00"; err != nil || got != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(upload(func(map[string]any) {}))
	f.Add([]byte(`{"keypair":{"Keypair":"x"},"is_public":true,"retention_period":{"Period":1}}`))
	f.Add([]byte(`{"cache":"a","store_path_hashes":["` + hash + `"]}`))
	f.Add([]byte(`{"store_path":"/nix/store/x","keep":5,"expires_in":60,"upstream":["a"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if u, err := DecodeUploadInfo(body); err == nil {
			again, err := json.Marshal(u)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeUploadInfo(again); err != nil {
				t.Errorf("%s came back as %s: %v", body, again, err)
			}
		} else {
			status(t, err)
		}
		_, create := DecodeCreateCache(asJSON, body)
		_, patch := DecodePatchCache(asJSON, body)
		_, missing := DecodeMissingPaths(asJSON, body)
		_, closure := DecodeClosure(asJSON, body)
		_, pin := DecodePin(asJSON, body)
		for _, err := range []error{create, patch, missing, closure, pin} {
			if s := status(t, err); s != 200 && s != 400 && s != 422 {
				t.Errorf("%s: %d", body, s)
			}
		}
	})
}
