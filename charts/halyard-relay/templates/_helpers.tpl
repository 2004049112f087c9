{{- define "halyard-relay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Short enough for the suffixes of other objects. */}}
{{- define "halyard-relay.fullname" -}}
{{- $name := include "halyard-relay.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "halyard-relay.selectorLabels" -}}
app.kubernetes.io/name: {{ include "halyard-relay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "halyard-relay.labels" -}}
{{ include "halyard-relay.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: relay
app.kubernetes.io/part-of: halyard
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "halyard-relay.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "halyard-relay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "halyard-relay.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "halyard-relay.secretName" -}}
{{- with .Values.upstream.key }}
{{- if .value }}{{ include "halyard-relay.fullname" $ }}-upstream
{{- else }}
{{- required "upstream.key: a relay needs a key; set existingSecret to the name of a Secret that holds it, or value" .existingSecret }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A table and those in it, as TOML. Strings, numbers, booleans and lists are written alike in JSON and TOML. */}}
{{- define "halyard-relay.toml" -}}
[{{ .path }}]
{{ range $name, $value := .table }}{{ if not (kindIs "map" $value) }}{{ $name }} = {{ toJson $value }}
{{ end }}{{ end }}
{{- range $name, $value := .table }}{{ if kindIs "map" $value }}
{{ include "halyard-relay.toml" (dict "path" (printf "%s.%s" $.path $name) "table" $value) }}
{{- end }}{{ end }}
{{- end }}

{{- define "halyard-relay.config" -}}
{{- $owned := dict
  "upstream" (dict "url" .Values.upstream.url "key_file" "/run/secrets/halyard/relay-key")
  "serve" (dict "host" "0.0.0.0" "port" 8701)
  "admin" (dict "host" "0.0.0.0" "port" 8702)
  "data" (dict "dir" "/data") }}
{{- include "halyard-relay.toml" (dict "path" "relay" "table" (mergeOverwrite (deepCopy .Values.config) $owned)) }}
{{- end }}

{{- /* The phases of the drain, and 15 s for what they take beyond their limits and for ending the process. */}}
{{- define "halyard-relay.graceSeconds" -}}
{{- $drain := .Values.config.drain | default dict }}
{{- addf (dig "accept_s" 5 $drain) (dig "window_s" 30 $drain) (dig "forward_s" 10 $drain) 15 | ceil | int }}
{{- end }}

{{- define "halyard-relay.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "halyard-relay.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
