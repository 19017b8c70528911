package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
	"onceupon/trainer/fetch"
	"onceupon/trainer/judge"
)

func teacherCommand() *cli.Command {
	return &cli.Command{
		Name:  "teacher",
		Usage: "fetch a teacher, list those with names, say which libllama the card needs",
		Subcommands: []*cli.Command{
			{
				Name: "pull", Usage: "fetch a GGUF, going on where a call before ended", ArgsUsage: "NAME|URL|PATH",
				Description: "A NAME of `teacher list` comes from its hub ($HF_ENDPOINT, else huggingface.co), whose statement of the sha256 is checked\n" +
					"unless --sha256 gives one; a URL needs --sha256 unless its server is such a hub. A file that is already there, also\n" +
					"in the cache of the hub's own client, and a PATH are checked and used as they are. The file is FILE.part until its hash and header are right.",
				Flags: append(commonFlags(),
					&cli.StringFlag{Name: "sha256", Usage: "of the file, 64 hexadecimal `DIGITS`"},
					&cli.StringFlag{Name: "to", Usage: "`FOLDER`; default the user's data folder"}),
				Action: teacherPull,
			},
			{Name: "list", Usage: "teachers with names, and whether they are here", Flags: commonFlags(), Action: teacherList},
			{Name: "runtime", Usage: "which libllama the card and its driver can run", Flags: append(commonFlags(),
				&cli.StringFlag{Name: "driver", Usage: "NVIDIA's driver library `FILE`; default the system's", Hidden: true}), Action: teacherRuntime},
		},
		Action: func(*cli.Context) error {
			return fault.New(fault.Usage, "teacher: give pull, list or runtime")
		},
	}
}

// hub is where names are fetched from: the variable is that of the hub's own
// client.
func hub() string {
	if h := os.Getenv("HF_ENDPOINT"); h != "" {
		return strings.TrimRight(h, "/")
	}
	return "https://huggingface.co"
}

// source is a teacher to pull: a file that is there, or an address.
type source struct {
	path, url, file string
	known           judge.Known
}

func findSource(argument string) (source, error) {
	s := source{}
	if u, err := url.Parse(argument); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		s.url, s.file = argument, path.Base(u.Path)
		if !strings.HasSuffix(strings.ToLower(s.file), ".gguf") {
			return s, fault.New(fault.Usage, "teacher pull %s: the address must end in the name of a .gguf file", argument)
		}
		return s, nil
	}
	if known, ok := judge.Named(argument); ok {
		s.known = known
		if p, ok := known.Find(); ok {
			s.path = p
			return s, nil
		}
		if known.Repository == "" {
			return s, fault.New(fault.Capability, "teacher %s comes in a package: run `make fetch`", known.Name)
		}
		s.url, s.file = hub()+"/"+known.Repository+"/resolve/main/"+known.File, known.File
		return s, nil
	}
	if _, err := os.Stat(argument); err != nil {
		return s, fault.New(fault.Usage, "teacher pull %q: neither a name (%s), nor an address, nor a file that is there", argument, strings.Join(judge.Names(), ", "))
	}
	s.path = argument
	return s, nil
}

// otherwise adds to an error of a name's hub what else would do.
func (s source) otherwise(err error) error {
	if s.known.Name == "" || !errors.Is(err, fetch.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("%w; HF_ENDPOINT names another hub, and a file that you have is taken by its path", err)
}

// licence is what must be named before a fetch begins; the file's own name
// tells for addresses.
func licence(s source) string {
	if s.known.Licence != "" {
		return s.known.Licence
	}
	plain := strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s.url + s.path))
	if strings.Contains(plain, "llama31") || strings.Contains(plain, "llama318b") {
		k, _ := judge.Named("llama-3.1-8b-q8_0")
		return k.Licence
	}
	return ""
}

func teacherPull(c *cli.Context) error {
	if c.NArg() != 1 {
		return fault.New(fault.Usage, "teacher pull: give one NAME, URL or PATH")
	}
	want := strings.ToLower(c.String("sha256"))
	if c.IsSet("sha256") && !fetch.IsHash(want) {
		return fault.New(fault.Usage, "--sha256 %q: must be 64 hexadecimal digits", c.String("sha256"))
	}
	s, err := findSource(c.Args().First())
	if err != nil {
		return err
	}
	r := reporter(c)
	if text := licence(s); text != "" {
		r.Say("licence: %s; by fetching or using this file you accept it", text)
	}
	check := func(path string) error {
		h, err := llama.ReadHeader(path)
		if err != nil {
			return err
		}
		return s.known.Shape.Matches(h)
	}
	result := fetch.Result{Path: s.path, HashFrom: "file"}
	if s.path != "" {
		if err := check(s.path); err != nil {
			return err
		}
		if result.SHA256, err = fetch.Hash(c.Context, s.path, func(done, total int64) { r.Progress("sha256", done, total, "bytes", "") }); err != nil {
			return err
		}
		if want != "" {
			if want != result.SHA256 {
				return fault.New(fault.Damaged, "%s: sha256 is %s, not %s: delete the file and pull it again", s.path, result.SHA256, want)
			}
			result.HashFrom = "given"
		}
		if info, err := os.Stat(s.path); err == nil {
			result.Bytes = info.Size()
		}
		r.Say("%s is already there and used as it is", s.path)
	} else {
		folder := c.String("to")
		if folder == "" {
			folder = filepath.Join(judge.DataFolder(), "teachers")
		}
		to := filepath.Join(folder, s.file)
		if _, err := os.Stat(to); err == nil {
			return fault.New(fault.Usage, "%s is already there: pull that path to check it, or delete it", to)
		}
		r.Say("%s", s.url)
		if s.known.Name != "" {
			r.Say("about %.2g GB; its exact size and sha256 are the hub's to state", s.known.Gigabytes)
		}
		result, err = fetch.File(c.Context, fetch.Options{URL: s.url, To: to, SHA256: want, Begins: "GGUF", Check: check,
			Progress: func(done, total int64) { r.Progress("pull", done, total, "bytes", amount(done, total)) }, Say: r.Say})
		if err != nil {
			return s.otherwise(err)
		}
	}
	h, err := llama.ReadHeader(result.Path)
	if err != nil {
		return err
	}
	name := result.Path
	if s.known.Name != "" {
		name = s.known.Name
	}
	from := map[string]string{"given": "as given", "hub": "as the hub states it", "file": "compared with none"}[result.HashFrom]
	r.Say("sha256 %s (%s), %s, mostly %s, %.2f GiB of weights; use it with --teacher %s", result.SHA256, from, h, h.Type, gib(h.Bytes), name)
	return r.Emit(map[string]any{"event": "result", "command": "teacher pull", "path": result.Path, "bytes": result.Bytes, "sha256": result.SHA256,
		"sha256_from": result.HashFrom, "fetched_bytes": result.Fetched, "resumed_from": result.ResumedFrom, "connections": result.Connections,
		"architecture": h.Architecture, "type": h.Type.String(), "licence": licence(s)})
}

// amount is for eyes that do not count nine digits.
func amount(done, total int64) string {
	if total == 0 {
		return fmt.Sprintf("%.2f GiB", gib(uint64(done)))
	}
	return fmt.Sprintf("%.2f of %.2f GiB", gib(uint64(done)), gib(uint64(total)))
}

func teacherList(c *cli.Context) error {
	type line struct {
		Name      string  `json:"name"`
		Licence   string  `json:"licence"`
		Path      string  `json:"path"`
		Source    string  `json:"source"`
		Gigabytes float64 `json:"gigabytes"`
		Error     string  `json:"error,omitempty"`
	}
	var all []line
	for _, k := range judge.Catalogue() {
		l := line{Name: k.Name, Licence: k.Licence, Gigabytes: k.Gigabytes, Source: "make fetch"}
		if k.Repository != "" {
			l.Source = k.Repository + "/" + k.File
		}
		state := "absent"
		if p, ok := k.Find(); ok {
			l.Path, state = p, p
			h, err := llama.ReadHeader(p)
			if err == nil {
				err = k.Shape.Matches(h)
			}
			if err != nil {
				l.Error, state = err.Error(), err.Error()
			}
		}
		all = append(all, l)
		if !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "%-20s about %4.2g GB  %s\n%20s %s; %s\n", k.Name, k.Gigabytes, state, "", l.Source, k.Licence)
		}
	}
	return reporter(c).Emit(map[string]any{"event": "result", "command": "teacher list", "teachers": all})
}
