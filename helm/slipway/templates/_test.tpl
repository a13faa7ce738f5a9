{{/* A pod of helm test that runs files/check.py: `check` is its first word, `urls` the others. */}}
{{- define "slipway.test" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ .root.Release.Name }}-{{ .check }}
  labels:
    {{- include "slipway.labels" .root | nindent 4 }}
    app.kubernetes.io/component: test
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  restartPolicy: Never
  activeDeadlineSeconds: 180
  serviceAccountName: {{ .root.Release.Name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "slipway.podSecurity" . | nindent 4 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: check
      image: {{ (include "slipway.runs" (dict "root" .root "track" "stable") | fromJson).image }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [python3, /scripts/check.py, {{ .check }}]
      args:
        {{- range .urls }}
        - {{ . | quote }}
        {{- end }}
      {{- if .root.Values.keys.existingSecret }}
      env:
        - {name: KEYS, value: "yes"}
      {{- end }}
      resources:
        requests: {cpu: 100m, memory: 64Mi}
        limits: {cpu: 500m, memory: 128Mi}
      securityContext:
        {{- include "slipway.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: scripts, mountPath: /scripts, readOnly: true}
  volumes:
    - {name: scripts, configMap: {name: {{ .root.Release.Name }}-scripts}}
{{- end }}
