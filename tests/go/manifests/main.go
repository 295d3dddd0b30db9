// Renders and checks what is in deploy/ with the very libraries that helm, kustomize and BuildKit are made of. The whole of their
// command lines would take minutes to build.
//
//	manifests kustomize FOLDER             what `kustomize build` makes of it
//	manifests helm FOLDER NAME [VALUES]    what `helm template NAME` makes of a chart, with a file of values
//	manifests dockerfile FILE              the last stage's instructions, one a line, after BuildKit's own linter has had its say
//
// Every object is decoded strictly into the type that Kubernetes, or the Prometheus operator, has for it: a field that does not
// exist, stands there twice or is of another type is an error. Problems go to standard error, exit code 1.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	output, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(output)
}

func run(arguments []string) (string, error) {
	var rendered string
	var err error
	switch {
	case len(arguments) == 2 && arguments[0] == "dockerfile":
		return dockerfile(arguments[1])
	case len(arguments) == 2 && arguments[0] == "kustomize":
		rendered, err = kustomize(arguments[1])
	case len(arguments) >= 3 && arguments[0] == "helm":
		rendered, err = helm(arguments[1], arguments[2], arguments[3:])
	default:
		err = errors.New("usage: manifests kustomize FOLDER | helm FOLDER NAME [VALUES] | dockerfile FILE")
	}
	if err != nil {
		return "", err
	}
	return rendered, strictlyTyped(rendered)
}

func kustomize(folder string) (string, error) {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return "", err
	}
	text, err := made.AsYaml()
	return string(text), err
}

func helm(folder, name string, files []string) (string, error) {
	chart, err := loader.Load(folder)
	if err != nil {
		return "", err
	}
	values := map[string]any{}
	for _, file := range files {
		text, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer text.Close()
		more, err := loader.LoadValues(text)
		if err != nil {
			return "", err
		}
		values = loader.MergeMaps(values, more)
	}
	options := common.ReleaseOptions{Name: name, Namespace: "default", Revision: 1, IsInstall: true}
	given, err := util.ToRenderValues(chart, values, options, common.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	// A value that a template names and nobody gives is an error.
	rendered, err := engine.Engine{Strict: true}.Render(chart, given)
	if err != nil {
		return "", err
	}
	var documents []string
	for _, template := range slices.Sorted(maps.Keys(rendered)) {
		if filepath.Ext(template) == ".yaml" && strings.TrimSpace(rendered[template]) != "" {
			documents = append(documents, rendered[template])
		}
	}
	return strings.Join(documents, "\n---\n"), nil
}

func strictlyTyped(rendered string) error {
	if err := monitoring.AddToScheme(scheme.Scheme); err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(rendered)))
	defer documents.Close()
	buffer := make([]byte, len(rendered)+1)
	var problems []error
	for {
		length, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return errors.Join(problems...)
		} else if err != nil {
			return err
		}
		document := buffer[:length]
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		if _, _, err := decoder.Decode(document, nil, nil); err != nil {
			problems = append(problems, fmt.Errorf("%w in\n%s", err, document))
		}
	}
}

func dockerfile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	var problems []error
	for _, warning := range parsed.Warnings {
		problems = append(problems, errors.New(warning.Short))
	}
	warn := func(rule, _, _, message string, _ []parser.Range) { problems = append(problems, fmt.Errorf("%s: %s", rule, message)) }
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{Warn: warn}))
	if err != nil {
		return "", err
	}
	last := stages[len(stages)-1]
	lines := []string{"FROM " + last.BaseName}
	for _, command := range last.Commands {
		lines = append(lines, fmt.Sprint(command))
	}
	return strings.Join(lines, "\n") + "\n", errors.Join(problems...)
}
