{{- define "longwire.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longwire.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "longwire.labels" -}}
{{ include "longwire.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "longwire.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* The most nodes that there may be. Each has a configuration. */ -}}
{{- define "longwire.nodes" -}}
{{- if .Values.autoscaling.enabled -}}{{ max .Values.replicas .Values.autoscaling.maxReplicas }}{{- else -}}{{ .Values.replicas }}{{- end -}}
{{- end -}}

{{- define "longwire.hasCommandPorts" -}}
{{- if or (eq .Values.router.listen "port") .Values.api.enabled }}yes{{ end -}}
{{- end -}}

{{- /* Rules about several values, which the schema cannot express in words that help. */ -}}
{{- define "longwire.validate" -}}
{{- $fullname := include "longwire.fullname" . -}}
{{- if or (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $fullname)) (has $fullname (list "true" "false" "null" "yes" "no" "on" "off" "y" "n")) -}}
{{- fail (printf "%q cannot name a Service: set fullnameOverride to a word of lower-case letters, digits and hyphens" $fullname) -}}
{{- end -}}
{{- if and (eq .Values.cluster.engine "local") (gt (int (include "longwire.nodes" .)) 1) -}}
{{- fail "several nodes need cluster.engine: redis or nats" -}}
{{- end -}}
{{- if and (ne .Values.cluster.engine "local") (not .Values.cluster.urls) (not .Values.cluster.urlSecret.name) -}}
{{- fail "cluster.engine needs cluster.urls or cluster.urlSecret.name" -}}
{{- end -}}
{{- if and (eq .Values.router.listen "socket") (not .Values.php.enabled) -}}
{{- fail "router.listen: socket is for PHP in the same pod: enable php, or set router.listen to port or off" -}}
{{- end -}}
{{- if and (eq .Values.router.listen "port") (not .Values.router.secret.name) -}}
{{- fail "router.listen: port needs router.secret.name, a Secret with at least 16 characters" -}}
{{- end -}}
{{- if and .Values.api.enabled (not .Values.api.token.name) -}}
{{- fail "api.enabled needs api.token.name, a Secret with at least 16 characters" -}}
{{- end -}}
{{- if and .Values.php.enabled (eq .Values.php.code "configMap") (not .Values.php.configMap) -}}
{{- fail "php.code: configMap needs php.configMap" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if gt (add .Values.cluster.firstNumber (include "longwire.nodes" .)) 4096 -}}
{{- fail "cluster.firstNumber is too high: nodes have the numbers 0 to 4095" -}}
{{- end -}}
{{- range $name, $text := .Values.php.files -}}
{{- if not (regexMatch "^[A-Za-z0-9._-]+$" $name) -}}
{{- fail (printf "php.files: a ConfigMap cannot have a file %q, only letters, digits, dots, hyphens and underscores" $name) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- $servicePorts := list -}}
{{- range .Values.ports -}}
{{- if or (has .name $names) (has (int .servicePort) $servicePorts) -}}
{{- fail (printf "ports: %s has the name or the servicePort of a port before it" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- $servicePorts = append $servicePorts (int .servicePort) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not (has .Values.ingress.port $names)) -}}
{{- fail (printf "ingress.port: no port in ports has the name %q" .Values.ingress.port) -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not (has (int .Values.httpRoute.port) $servicePorts)) -}}
{{- fail (printf "httpRoute.port: no port in ports has the servicePort %d" (int .Values.httpRoute.port)) -}}
{{- end -}}
{{- range $label, $text := .Values.podLabels -}}
{{- if hasKey (include "longwire.selector" $ | fromYaml) $label -}}
{{- fail (printf "podLabels: the chart itself sets %s" $label) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs" -}}
{{- end -}}
{{- end -}}

{{- /* The configuration of one node. Takes a dict with `root` and the `ordinal` of the pod. */ -}}
{{- define "longwire.config" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $pod := printf "%s-%d" (include "longwire.fullname" $root) .ordinal -}}
[node]
name = "{{ $pod }}"
number = {{ add $values.cluster.firstNumber .ordinal }}
{{- with $values.lines.node }}
{{ . | trim }}
{{- end }}

[limits]
drain_timeout = "{{ $values.drainSeconds }}s"
{{- with $values.lines.limits }}
{{ . | trim }}
{{- end }}

[admin]
bind = "{{ $values.address }}:9011"

[router]
{{- if eq $values.router.listen "socket" }}
bind = "unix:/run/longwire/router.sock"
{{- else if eq $values.router.listen "port" }}
bind = "{{ $values.address }}:9010"
advertise = "{{ $pod }}.{{ include "longwire.fullname" $root }}-nodes.{{ $root.Release.Namespace }}.svc:9010"
secret = "env:ROUTER_SECRET"
{{- else }}
bind = "off"
{{- end }}
{{- with $values.lines.router }}
{{ . | trim }}
{{- end }}
{{- if eq $values.router.listen "socket" }}

[router.socket]
mode = "0660"
{{- end }}

[api]
{{- if $values.api.enabled }}
bind = "{{ $values.address }}:9012"
token = "env:API_TOKEN"
{{- else }}
bind = "off"
{{- end }}
{{- with $values.lines.api }}
{{ . | trim }}
{{- end }}

[cluster]
engine = "{{ $values.cluster.engine }}"
{{- if $values.cluster.urlSecret.name }}
urls = ["env:ENGINE_URL"]
{{- else if $values.cluster.urls }}
urls = {{ toJson $values.cluster.urls }}
{{- end }}
{{- with $values.lines.cluster }}
{{ . | trim }}
{{- end }}

{{ tpl $values.config $root | trim }}
{{- end -}}

{{- define "longwire.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The configuration of php-fpm. */ -}}
{{- define "longwire.pool" -}}
[global]
daemonize = no
error_log = /proc/self/fd/2

[longwire]
; The folder belongs to a group that both containers are in.
listen = /run/longwire/php-fpm.sock
listen.mode = 0660
; Longwire bounds its connections itself (max_connections); workers that come and go only add waiting.
pm = static
pm.max_children = {{ .Values.php.workers }}
clear_env = no
; error_log() and warnings go to Longwire's log, with the session that they belong to.
php_admin_flag[log_errors] = on
php_admin_flag[display_errors] = off
{{- with .Values.php.pool }}
{{ . | trim }}
{{- end }}
{{- end -}}
