{{- define "reflex-edge.labels" -}}
app.kubernetes.io/name: reflex-edge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "reflex-edge.name" -}}
{{- if contains "reflex-edge" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-reflex-edge" (.Release.Name | trunc 40 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "reflex-edge.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Envoy's clusters name a host, and TLS on port 443. */}}
{{- define "reflex-edge.host" -}}
{{- $host := trimPrefix "https://" .Values.upstream -}}
{{- if or (eq $host .Values.upstream) (regexMatch "[^A-Za-z0-9.-]" $host) -}}
{{- fail "with envoy.enabled, upstream is https://HOST" -}}
{{- end -}}
{{ $host }}
{{- end }}
