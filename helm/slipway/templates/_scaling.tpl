{{/* How fast pods come and go, for the HorizontalPodAutoscaler and for the one that KEDA makes. */}}
{{- define "slipway.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - {type: Percent, value: 100, periodSeconds: 30}
    - {type: Pods, value: 4, periodSeconds: 30}
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownSeconds }}
  policies:
    - {type: Percent, value: 10, periodSeconds: 60}
{{- end }}
